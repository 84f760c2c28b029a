#!/bin/busybox sh
# The initrd of a virtual machine: loads the drivers, mounts the disk, and becomes the host's stage 2.
b=/bin/busybox
$b mount -t proc proc /proc
$b mount -t devtmpfs dev /dev
while read -r module; do $b insmod "/modules/$module"; done < /modules/order
# A driver may find its device a moment after it was loaded.
n=0
until [ -b /dev/vda ] || [ $n = 100 ]; do n=$((n + 1)); $b usleep 100000; done
# ext4 as every distribution mounts it: ordered data, barriers on, a commit every five seconds.
$b mount -t ext4 /dev/vda /root || { echo "testbed: the disk cannot be mounted"; $b poweroff -f; }
$b mount --move /dev /root/dev
$b umount /proc
exec $b switch_root /root /stage2
