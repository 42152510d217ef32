#!/bin/busybox sh
# The first process of the virtual machine: makes a plain host with cgroup v2 around the suite, or becomes
# systemd. Its variables come from the kernel's command line.

# Never on a host: only the machine's kernel starts it as its first process with these.
if [ $$ != 1 ] || [ -z "$VM_SECONDS" ]; then
  echo 'This is the first process of a virtual machine.'
  exit 1
fi
/bin/busybox --install -s /bin
export PATH=/bin HOME=/root TMPDIR=/tmp
suite="/bin/vm __guest $VM_CASES"
[ -z "$VM_SHELL" ] || suite='setsid cttyhack sh'

if [ -n "$VM_SYSTEMD" ]; then
  # It mounts what is needed. The unit's default dependencies would start what real hosts need.
  mkdir -p /etc/systemd/system
  {
    echo '[Unit]'
    echo 'DefaultDependencies=no'
    echo '[Service]'
    echo "Environment=PATH=/bin HOME=/root TMPDIR=/tmp VM_NONCE=$VM_NONCE"
    echo "ExecStart=/bin/sh -c 'ip link set lo up; chmod 1777 /tmp; $suite; poweroff -f'"
    echo 'ExecStopPost=/bin/poweroff -f'
    echo "RuntimeMaxSec=$VM_SECONDS"
    echo 'StandardInput=tty-force'
    echo 'StandardOutput=tty'
    echo 'StandardError=tty'
    echo 'TTYPath=/dev/console'
  } >/etc/systemd/system/suite.service
  exec /lib/systemd/systemd --unit=suite.service --log-level=warning --log-target=kmsg --show-status=false
fi

mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
mount -t tmpfs -o mode=1777 tmpfs /dev/shm
mount -t tmpfs -o mode=1777 tmpfs /tmp
mount -t cgroup2 cgroup2 /sys/fs/cgroup
ip link set lo up
hostname vm
# What a delegated base looks like: the root gives it controllers, and it gives them to its leaves.
for directory in /sys/fs/cgroup /sys/fs/cgroup/runlane; do
  mkdir -p $directory
  for controller in $(cat $directory/cgroup.controllers); do
    echo +$controller >$directory/cgroup.subtree_control
  done
done
# In a group of its own the suite gets its share of the CPU, whatever runs elsewhere.
mkdir /sys/fs/cgroup/suite
echo 10000 >/sys/fs/cgroup/suite/cpu.weight
echo $$ >/sys/fs/cgroup/suite/cgroup.procs
# Without this the machine would live on if the suite hung, and nobody was there to kill it.
(sleep $VM_SECONDS; echo "$VM_NONCE guest out of time"; poweroff -f) &
$suite
poweroff -f
