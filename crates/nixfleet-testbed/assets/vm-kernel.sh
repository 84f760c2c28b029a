#!/bin/bash
# Fetches Debian's kernel for virtual machines and makes what a machine starts from: OUT/vmlinuz and OUT/initrd.
#   vm-kernel.sh ROOT OUT ASSETS
# Nothing is installed: the package is taken apart. ROOT gives the static busybox of the initrd.
set -euo pipefail
root=$1 out=$2 assets=$3
export LC_ALL=C PATH=/usr/sbin:/usr/bin:/sbin:/bin
work=$out/work
mkdir -p "$work"/{lists/partial,archives/partial,tree,initrd/modules}

# The kernel that the meta package stands for, by the lists that apt has; fails if it knows none, or an old one.
download() {
  local package
  package=$(apt-cache depends linux-image-cloud-amd64 |
    sed -n 's/^ *Depends: \(linux-image-[^ ]*-cloud-amd64\)$/\1/p' | head -n 1)
  [ -n "$package" ] || return 1
  (cd "$work" && apt-get -q -o APT::Sandbox::User=root -o Acquire::Retries=3 download "$package")
}
if ! download; then
  # The machine's lists are missing or stale, and they are not ours to renew: lists of our own.
  printf 'Dir::State::Lists "%s";\nDir::Cache "%s";\n' "$work/lists" "$work" > "$work/apt.conf"
  export APT_CONFIG=$work/apt.conf
  apt-get -q -o APT::Sandbox::User=root -o Acquire::Retries=3 update
  download
fi
deb=$(echo "$work"/linux-image-*.deb)

dpkg-deb --fsys-tarfile "$deb" | tar -x -C "$work/tree" --wildcards './boot/vmlinuz-*' '*/modules.builtin*' \
  '*/modules.order' '*/kernel/drivers/virtio/*' '*/kernel/drivers/block/*' '*/kernel/drivers/net/*' \
  '*/kernel/drivers/char/*' '*/kernel/net/core/*'
[ -e "$work/tree/lib" ] || ln -s usr/lib "$work/tree/lib"
version=$(ls "$work/tree/lib/modules")
depmod -b "$work/tree" "$version"

# In the order in which they must be loaded; what several need is named once.
for module in virtio_pci virtio_blk virtio_net virtio_console; do
  modprobe --show-depends -d "$work/tree" -S "$version" "$module"
done | sed -n 's/^insmod \([^ ]*\).*/\1/p' | awk '!seen[$0]++' > "$work/wanted"
while read -r file; do
  name=${file##*/} name=${name%.xz}
  case $file in *.xz) xz -dc "$file" > "$work/initrd/modules/$name" ;; *) cp "$file" "$work/initrd/modules/" ;; esac
  echo "$name" >> "$work/initrd/modules/order"
done < "$work/wanted"
grep -q '^virtio_blk.ko$' "$work/initrd/modules/order"

mkdir -p "$work/initrd"/{bin,dev,proc,root}
cp "$root/bin/busybox" "$work/initrd/bin/busybox"
install -m 0755 "$assets/vm-init.sh" "$work/initrd/init"
(cd "$work/initrd" && find . | cpio --quiet -o -H newc) > "$out/initrd"
cp "$work"/tree/boot/vmlinuz-* "$out/vmlinuz"
echo "${deb##*/}" > "$out/package"
rm -rf "$work"
