#!/bin/bash
# Stand-in for systemd-boot-builder.py: one entry per generation of the system profile, each kernel and
# initrd copied to /boot once, and as default the generation whose store path equals the toplevel passed
# (if none does, the old default stays). Unused kernels are removed last, as GRUB and systemd-boot do.
# Programs are started for all generations at once: the real one is a single process.
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
# Replaces a file by a temporary name; one that says the same already is left alone.
write() { # write FILE TEXT
  local old=
  if [ -e "$1" ]; then IFS= read -r -d '' old < "$1"; fi
  [ "$old" != "$2" ] || return 0
  printf '%s' "$2" > "$1.tmp" || { rm -f "$1.tmp"; fail "failed to write $1"; }
  [ "${3-}" != synced ] || sync -f "$1.tmp"
  mv "$1.tmp" "$1"
}
[ -d "$boot/loader/entries" ] && [ -d "$boot/EFI/nixos" ] ||
  mkdir -p "$boot/loader/entries" "$boot/EFI/nixos" || fail "failed to create $boot/loader/entries"
default=
declare -A used=() system_of=()
numbers=() files=()
links=("$profile"-*-link)
mapfile -t systems < <(readlink -f -- "${links[@]}")
for index in "${!links[@]}"; do
  system=${systems[index]}
  [ -e "$system/kernel" ] || continue
  number=${links[index]#"$profile"-} number=${number%-link}
  numbers+=("$number") system_of[$number]=$system
  files+=("$system/kernel" "$system/initrd")
done
mapfile -t files < <(readlink -f -- "${files[@]}" | sort -u)
for file in "${files[@]}"; do
  name=${file#/nix/store/} name=${name//\//-}.efi
  put "$file" "$boot/EFI/nixos/$name"
  used[$name]=1
done
for number in "${numbers[@]}"; do
  system=${system_of[$number]} entry=nixos-generation-$number.conf params=
  read -r params < "$system/kernel-params"
  printf -v text 'title NixOS\nversion Generation %s\noptions init=%s/init %s\n' "$number" "$system" "$params"
  write "$boot/loader/entries/$entry" "$text"
  used[$entry]=1
  [ "$system" = "$toplevel" ] && default=$entry
done
if [ -n "$default" ]; then
  write "$boot/default" "$toplevel"$'\n' synced
  write "$boot/loader/loader.conf" "default $default"$'\n'
fi
for file in "$boot"/EFI/nixos/* "$boot"/loader/entries/*; do
  [ -n "${used[${file##*/}]-}" ] || rm -f "$file"
done
sync -f "$boot"
