#!/bin/busybox sh
# The first process of the virtual machine: makes a plain host with cgroup v2 around the suite. Its
# variables come from the kernel's command line.
/bin/busybox --install -s /bin
export PATH=/bin HOME=/root TMPDIR=/tmp
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
(sleep ${VM_SECONDS:-300}; echo "$VM_NONCE guest out of time"; poweroff -f) &
if [ -n "$VM_SHELL" ]; then
  setsid cttyhack sh
else
  /bin/vm guest $VM_CASES
fi
poweroff -f
