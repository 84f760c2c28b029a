#!/bin/bash
# Makes the disk that virtual machines of a flavour start from: the same root and layer as every host, on ext4.
#   vm-image.sh ROOT LAYER OUT ASSETS NAME ADDRESS GATEWAY SIZE BYTES_MAX
# Runs as root in a private mount namespace; the disk is OUT/disk, sparse.
set -euo pipefail
root=$1 layer=$2 out=$3 assets=$4 name=$5 address=$6 gateway=$7 size=$8 bytes_max=$9
export LC_ALL=C PATH=/usr/sbin:/usr/bin:/sbin:/bin
mkdir -p "$out"/{upper,work,merged}
mount -t overlay overlay -o "lowerdir=$layer:$root,upperdir=$out/upper,workdir=$out/work" "$out/merged"
m=$out/merged
tr -d - < /proc/sys/kernel/random/uuid > "$m/etc/machine-id"
echo "$name" > "$m/etc/hostname"
echo "$address $gateway" > "$m/testbed/address"
install -m 0755 "$assets/vm-console.sh" "$m/testbed/console.sh"
printf '#!/bin/bash\nsetsid bash /testbed/console.sh %s < /dev/null > /dev/null 2>&1 &\n' "$bytes_max" > "$m/testbed/at-boot.d/console"
chmod 0755 "$m/testbed/at-boot.d/console"
# As after a first boot: else systemd rebuilds caches (ld.so, catalog, users) before anything else, four seconds of it.
touch "$m/etc/.updated" "$m/var/.updated"
# All tables are written now: else the kernel would go on writing them while a test counts on what is on the disk.
mke2fs -q -F -t ext4 -E lazy_itable_init=0,lazy_journal_init=0,nodiscard -m 0 -d "$m" "$out/disk" "$size"
umount "$m"
rm -rf "$out"/{upper,work,merged}
