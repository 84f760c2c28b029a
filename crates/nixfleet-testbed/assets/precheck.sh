#!/bin/bash
# Pre-switch checks: the inhibitors, by the rule of nixpkgs#477800 (only keys in both files that differ
# inhibit; skipped for boot and dry-activate). A file that is not a JSON object inhibits nothing.
new=$1 action=$2
case $action in boot | dry-activate) exit 0 ;; esac
keys() { tr -d '{}" \n' < "$1" 2>/dev/null | tr ',' '\n'; echo; }
[[ $(head -c 1 "$new/switch-inhibitors" 2>/dev/null) == '{' ]] || exit 0
[[ $(head -c 1 /run/current-system/switch-inhibitors 2>/dev/null) == '{' ]] || exit 0
found=0
while IFS=: read -r key value; do
  [ -n "$key" ] || continue
  while IFS=: read -r k v; do
    if [ "$k" = "$key" ] && [ "$v" != "$value" ]; then
      [ "$found" = 1 ] || echo "There are changes to critical components of the system:"
      echo "$key: $v -> $value"
      found=1
    fi
  done < <(keys /run/current-system/switch-inhibitors)
done < <(keys "$new/switch-inhibitors")
if [ "$found" = 1 ]; then
  echo "Switching into this system is not recommended."
  echo "You probably want to run 'nixos-rebuild boot' and reboot your system instead."
  exit 1
fi
