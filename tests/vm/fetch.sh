#!/usr/bin/env bash
# Fetches what the tests in virtual machines need: qemu and busybox are installed; a kernel and systemd
# are only unpacked, below the build's target directory. Nothing of it is committed. Run as root.
#
#   tests/vm/fetch.sh              what tier 2 needs
#   tests/vm/fetch.sh --systemd    and tier 3
#   tests/vm/fetch.sh --backports  and bookworm-backports' kernel, for RUNLANE_VM_KERNEL
set -euo pipefail
cd "$(dirname "$0")/../.."
cache=${CARGO_TARGET_DIR:-target}/vm

if ! command -v apt-get dpkg-deb >/dev/null; then
  echo 'SKIPPED tests/vm/fetch.sh: not a Debian or Ubuntu machine; docs/testing.md says what is needed'
  exit 0
fi
mkdir -p "$cache"
cache=$(cd "$cache" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export DEBIAN_FRONTEND=noninteractive

missing=()
command -v qemu-system-x86_64 >/dev/null || missing+=(qemu-system-x86)
command -v strip >/dev/null || missing+=(binutils)
# The one on the PATH may need shared libraries; the guest's has none.
[ -x "$cache/busybox" ] || missing+=(busybox-static)
if [ "${#missing[@]}" != 0 ]; then
  apt-get update -qq
  apt-get install -y -qq --no-install-recommends "${missing[@]}" >"$work/apt.log" 2>&1 ||
    { cat "$work/apt.log"; exit 1; }
  [ -x "$cache/busybox" ] || cp "$(command -v busybox)" "$cache/busybox"
fi

# Downloads packages, with more options for apt before `--`, and unpacks each into a directory.
unpack() {
  local into=$1 options=()
  shift
  while [ "$1" != -- ]; do options+=("$1"); shift; done
  shift
  mkdir -p "$work/debs" "$into"
  (cd "$work/debs" && apt-get -qq -o APT::Sandbox::User=root "${options[@]}" download "$@")
  for deb in "$work"/debs/*.deb; do dpkg-deb -x "$deb" "$into"; done
  rm -r "$work/debs"
}

# Unpacks the kernel that a metapackage stands for: fetch_kernel <name> <metapackage> <options…>
fetch_kernel() {
  local name=$1 meta=$2 image
  shift 2
  [ ! -e "$cache/$name" ] || return 0
  image=$(apt-cache "$@" depends "$meta" 2>/dev/null |
    awk '$1 == "Depends:" && $2 ~ /^linux-image-[0-9]/ { print $2; exit }')
  [ -n "$image" ] || return 1
  unpack "$work/kernel" "$@" -- "$image"
  cp "$work"/kernel/boot/vmlinuz-* "$cache/$name"
  rm -r "$work/kernel"
  echo "$cache/$name: $image"
}

# Debian's, then Ubuntu's.
fetch_host_kernel() {
  fetch_kernel vmlinuz linux-image-cloud-amd64 || fetch_kernel vmlinuz linux-image-virtual
}
# What apt knows of its mirrors may be old, or nothing.
fetch_host_kernel || { apt-get update -qq && fetch_host_kernel; } ||
  { echo 'No kernel package can be had from apt.'; exit 1; }

for wish in "$@"; do
  case $wish in
    --backports)
      mkdir -p "$work/lists"
      echo 'deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://deb.debian.org/debian bookworm-backports main' \
        >"$work/backports.list"
      options=(-o "Dir::Etc::SourceList=$work/backports.list" -o Dir::Etc::SourceParts=- -o "Dir::State::Lists=$work/lists")
      apt-get -qq "${options[@]}" -o APT::Sandbox::User=root update
      fetch_kernel vmlinuz-backports linux-image-cloud-amd64 "${options[@]}"
      ;;
    --systemd)
      [ ! -e "$cache/systemd" ] || continue
      mapfile -t packages < <(apt-cache depends --recurse --no-recommends --no-suggests --no-conflicts \
        --no-breaks --no-replaces --no-enhances systemd | grep -E '^(systemd|lib[a-z0-9.+-]*|zlib1g)$' | sort -u)
      unpack "$work/systemd" -- "${packages[@]}"
      # What nothing in the guest reads.
      (cd "$work/systemd" && rm -rf usr/share var usr/lib/*/perl* usr/lib/*/gconv)
      mv "$work/systemd" "$cache/systemd"
      ;;
    *) echo "unknown argument $wish"; exit 2 ;;
  esac
done
echo "tests/vm: $(ls "$cache" | tr '\n' ' ')in $cache"
