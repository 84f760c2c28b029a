#!/bin/bash
# Builds all systems with the flavour's own Nix, signs them into a binary cache, and makes the layer that
# every host of this flavour boots from. Runs as root in a private mount namespace:
#   prepare.sh ROOT STORE OUT ASSETS [AGENT_DIR]
# STORE lives on between runs (the builder's /nix and the master cache), so that a new agent rebuilds
# only what names it. OUT is fresh: OUT/layer, OUT/cache, OUT/systems, OUT/keys.
set -euo pipefail
root=$1 store=$2 out=$3 assets=$4 agent=${5-}
step() { echo "prepare: $* ($((SECONDS - begun)) s)" >&2; }
begun=$SECONDS
export LC_ALL=C HOME=/root PATH=/usr/sbin:/usr/bin:/sbin:/bin

rm -rf "$store/resign"
mkdir -p "$store"/{upper,work,merged,cache,keys} "$out"/{layer,work,merged,cache/nar,keys}
enter() { # enter MERGED: the file systems a chroot needs
  mount -t proc proc "$1/proc"
  # Devices of its own: the machine's /dev may lack a devpts, and must not be unmounted by mistake.
  mount -t tmpfs -o mode=0755 tmpfs "$1/dev"
  mkdir "$1/dev/pts"
  local node
  for node in null zero full random urandom tty; do touch "$1/dev/$node"; mount --bind "/dev/$node" "$1/dev/$node"; done
  mount -t devpts -o newinstance,ptmxmode=0666,mode=0620 devpts "$1/dev/pts"
  ln -s pts/ptmx "$1/dev/ptmx"
  ln -s /proc/self/fd "$1/dev/fd"
  mount -t tmpfs tmpfs "$1/tmp"
  mount -t tmpfs tmpfs "$1/run"
  mkdir -p "$1/run/build"/{assets,agent,cache,keys}
  mount --bind "$assets" "$1/run/build/assets"
  mount --bind "$store/cache" "$1/run/build/cache"
  mount --bind "$store/keys" "$1/run/build/keys"
  if [ -n "$agent" ]; then mount --bind "$agent" "$1/run/build/agent"; fi
}
configure() { # configure MERGED [LINE...]
  mkdir -p "$1/etc/nix"
  printf '%s\n' 'sandbox = false' 'build-users-group =' "${@:2}" > "$1/etc/nix/nix.conf"
}

mount -t overlay overlay -o "lowerdir=$root,upperdir=$store/upper,workdir=$store/work" "$store/merged"
enter "$store/merged"
configure "$store/merged" 'substituters =' 'max-jobs = 4' 'fsync-metadata = false' \
  'experimental-features = nix-command'
in_builder() { chroot "$store/merged" "$@"; }

args=(--arg assets /run/build/assets)
[ -z "$agent" ] || args+=(--arg agent /run/build/agent)
index=$(in_builder nix-build /run/build/assets/systems.nix -A index "${args[@]}" \
  --no-out-link --option auto-optimise-store false 2> "$out/build.log") || { tail -n 30 "$out/build.log" >&2; exit 1; }
cp "$store/merged$index" "$out/systems"
step "built $(wc -l < "$out/systems") systems"

for key in signing other impostor; do
  [ -e "$store/keys/$key.sec" ] && continue
  name=test-cache-1
  [ $key != other ] || name=other-cache-1
  in_builder nix-store --generate-binary-cache-key $name /run/build/keys/$key.sec /run/build/keys/$key.pub
done
cp "$store"/keys/* "$out/keys/"

mapfile -t tops < <(cut -d ' ' -f 2 "$out/systems")
in_builder nix copy --to 'file:///run/build/cache?secret-key=/run/build/keys/signing.sec&compression=zstd' \
  "${tops[@]}" 2> "$out/copy.log" || { tail -n 30 "$out/copy.log" >&2; exit 1; }
step "signed into the cache"
in_builder nix-store --query --requisites "${tops[@]}" > "$out/closure"
# The master cache also holds what older agents left: hosts see only this closure, by hard links.
cd "$store/cache"
sed 's,^/nix/store/\([a-z0-9]*\)-.*,\1.narinfo,' "$out/closure" | xargs cp -l -t "$out/cache" nix-cache-info
cd "$out/cache"
find . -name '*.narinfo' -print0 | xargs -0 sed -n 's/^URL: //p' | sort -u | (cd "$store/cache" && xargs cp -l -t "$out/cache/nar")

# The same narinfos without signatures (to import from), and signed by keys that hosts do not trust.
strip() { mkdir -p "$1" && cp -a nix-cache-info "$1/" && sed -s '/^Sig: /d' -- *.narinfo | split_narinfos "$1"; }
split_narinfos() { # one stream back into a file each, by the hash in its first line
  awk -v into="$1" '/^StorePath: /{ if (f) close(f); f = into "/" substr($2, 12, 32) ".narinfo" } { print > f }'
}
strip "$out/cache/testbed-unsigned"
ln -s ../nar "$out/cache/testbed-unsigned/nar"
for key in other impostor; do
  cp -a "$out/cache/testbed-unsigned" "$store/resign"
  rm "$store/resign/nar"
  mkdir -p "$store/merged/run/build/resign"
  mount --bind "$store/resign" "$store/merged/run/build/resign"
  in_builder nix store sign --store file:///run/build/resign --key-file /run/build/keys/$key.sec --all 2>> "$out/copy.log"
  umount "$store/merged/run/build/resign"
  mv "$store/resign" "$out/signed-$key"
done

# What a thief of the trusted key would serve under the name of `good`: another `activate`, signed as it should be.
good=$(sed -n 's/^good //p' "$out/systems")
in_builder cp -a "$good" /tmp/theft
in_builder sed -i '2i touch /var/log/stolen' /tmp/theft/activate
mkdir -p "$store/resign/nar"
cp -a nix-cache-info "$store/resign/"
in_builder nix-store --dump /tmp/theft > "$store/resign/nar/theft.nar"
hash=$(in_builder nix-hash --type sha256 --base32 /tmp/theft) size=$(stat -c %s "$store/resign/nar/theft.nar")
narinfo=$(basename "$good" | cut -d - -f 1).narinfo
sed -e 's,^URL: .*,URL: nar/theft.nar,' -e 's,^Compression: .*,Compression: none,' \
  -e "s,^\(File\|Nar\)Hash: .*,\1Hash: sha256:$hash," -e "s,^\(File\|Nar\)Size: .*,\1Size: $size," \
  "$out/cache/testbed-unsigned/$narinfo" > "$store/resign/$narinfo"
mount --bind "$store/resign" "$store/merged/run/build/resign"
in_builder nix store sign --store file:///run/build/resign --key-file /run/build/keys/signing.sec --all 2>> "$out/copy.log"
umount "$store/merged/run/build/resign"
mv "$store/resign" "$out/signed-thief"
step "exported $(wc -l < "$out/closure") paths"

# --- the layer --------------------------------------------------------------------------------
base=$(sed -n 's/^base //p' "$out/systems")
mount -t overlay overlay -o "lowerdir=$root,upperdir=$out/layer,workdir=$out/work" "$out/merged"
enter "$out/merged"
m=$out/merged
common=("trusted-public-keys = $(cat "$out/keys/signing.pub")" 'require-sigs = true')
configure "$m" 'substituters = file:///run/build/cache' 'fsync-metadata = false' "${common[@]}"
chroot "$m" nix-store --realise "$base" > /dev/null 2> "$out/realise.log" || { cat "$out/realise.log" >&2; exit 1; }
configure "$m" 'substituters = http://10.213.0.1:8080' "${common[@]}"
chroot "$m" nix-env --profile /nix/var/nix/profiles/system --set "$base" 2>> "$out/realise.log"
mkdir -p "$m/nix/var/nix/gcroots" "$m/var/log/journal" "$m/var/lib/nixfleet" "$m/testbed/at-boot.d"
ln -sfn /run/current-system "$m/nix/var/nix/gcroots/current-system"
ln -sfn /run/booted-system "$m/nix/var/nix/gcroots/booted-system"
touch "$m/etc/NIXOS"
rm -rf "$m/etc/systemd/system" "$m/etc/systemd/system.conf" "$m/etc/os-release"
for name in systemd/system systemd/system.conf os-release; do ln -s "/etc/static/$name" "$m/etc/$name"; done
rm -f "$m/usr/lib/systemd/system-generators/systemd-getty-generator" "$m/etc/machine-id" "$m/var/lib/dbus/machine-id"
ln -sfn "$base/etc" "$m/etc/static"
install -m 0755 "$assets/stage2.sh" "$m/stage2"
printf '127.0.0.1 localhost\n10.213.0.1 cache.test\n' > "$m/etc/hosts"
chroot "$m" "$(sed -n 's/^export INSTALL_BOOTLOADER=\([^ ]*\).*/\1/p' "$m$base/bin/switch-to-configuration")" "$base"
step "made the layer"
