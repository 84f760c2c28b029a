#!/bin/bash
# Stand-in for systemd-boot-builder.py: one entry per generation of the system profile, each kernel and
# initrd copied to /boot once, and as default the generation whose store path equals the toplevel passed
# (if none does, the old default stays). Unused kernels are removed last, as GRUB and systemd-boot do.
set -u
toplevel=$(readlink -f "$1")
boot=/boot
profile=/nix/var/nix/profiles/system
fail() { echo "$*" >&2; exit 1; }
# Copies by a temporary name, so that a full disk leaves no half kernel behind.
put() {
  [ -e "$2" ] && return
  if ! cp "$1" "$2.tmp"; then rm -f "$2.tmp"; fail "failed to copy $1 to $2"; fi
  mv "$2.tmp" "$2"
}
mkdir -p "$boot/loader/entries" "$boot/EFI/nixos" || fail "failed to create $boot/loader/entries"
default=
declare -A used=()
for link in "$profile"-*-link; do
  [ -L "$link" ] || continue
  number=${link#"$profile"-} number=${number%-link}
  system=$(readlink -f "$link")
  [ -e "$system/kernel" ] || continue
  kernel=$(readlink -f "$system/kernel") initrd=$(readlink -f "$system/initrd")
  for file in "$kernel" "$initrd"; do
    name=${file#/nix/store/} name=${name//\//-}.efi
    put "$file" "$boot/EFI/nixos/$name"
    used[$name]=1
  done
  entry="$boot/loader/entries/nixos-generation-$number.conf"
  printf 'title NixOS\nversion Generation %s\noptions init=%s/init %s\n' "$number" "$system" \
    "$(cat "$system/kernel-params")" > "$entry.tmp" || { rm -f "$entry.tmp"; fail "failed to write $entry"; }
  mv "$entry.tmp" "$entry"
  used[nixos-generation-$number.conf]=1
  [ "$system" = "$toplevel" ] && default="nixos-generation-$number.conf"
done
if [ -n "$default" ]; then
  printf '%s\n' "$toplevel" > "$boot/default.tmp" || { rm -f "$boot/default.tmp"; fail "failed to write $boot/default"; }
  sync -f "$boot/default.tmp"
  mv "$boot/default.tmp" "$boot/default"
  printf 'default %s\n' "$default" > "$boot/loader/loader.conf.tmp" && mv "$boot/loader/loader.conf.tmp" "$boot/loader/loader.conf"
fi
for file in "$boot"/EFI/nixos/* "$boot"/loader/entries/*; do
  [ -n "${used[${file##*/}]-}" ] || rm -f "$file"
done
sync -f "$boot"
