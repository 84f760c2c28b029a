#!/bin/bash
# What NixOS's stage 2 does, for a Debian root: PID 1 until systemd takes over.
export PATH=/usr/sbin:/usr/bin:/sbin:/bin
fallback=$(readlink -f /nix/var/nix/profiles/system)
system=$(cat /boot/default 2>/dev/null) || system=$fallback
# A default that was removed or torn: a real loader would offer the next entry.
[ -e "$system/init" ] || system=$fallback
mountpoint -q /proc || mount -t proc proc /proc
mountpoint -q /run || mount -t tmpfs -o mode=0755,nosuid,nodev tmpfs /run
rm -rf /nix/var/nix/temproots/* 2>/dev/null
ln -sfn "$system" /run/booted-system
read -r boot_id < /proc/sys/kernel/random/boot_id
read -r up _ < /proc/uptime
echo "$boot_id $system $((10#${up/./} * 10))" >> /var/log/boots.log
NIXOS_ACTION=boot TESTBED_BOOT=1 "$system/activate" "$system" >> /var/log/activate-at-boot.log 2>&1
# An activation script that cannot run at boot must not leave the machine without its links.
[ -L /run/current-system ] || ln -sfn "$system" /run/current-system
[ -L /etc/static ] || ln -sfn "$system/etc" /etc/static
for link in /testbed/at-boot.d/*; do [ -x "$link" ] && "$link"; done
exec /lib/systemd/systemd "$@"
