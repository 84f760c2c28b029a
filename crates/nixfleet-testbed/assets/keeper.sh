#!/bin/bash
# Owns one host: its mounts, network and cgroup, for as long as its standard input stays open.
#
# The test process holds the other end of that pipe; when it ends, however it ends, the pipe closes and
# everything here goes: the cgroup is killed, the mounts vanish with the private namespace, the folder is
# removed. Started as `unshare --mount --net --propagation private bash keeper.sh keep RUN`, with the
# settings in RUN/env. In place of `keep`, `hub` makes a network of several hosts (a bridge and the cache, no host) and
# `machine` owns a virtual machine. Events go to standard output, one per line.
set -u
export PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C
mode=$1 run=$2
. "$run/env" # root layer cache name cgroup disk_limit boot_limit real_syncs net_pid slot address gateway binds; kernel initrd
cg=/sys/fs/cgroup/$cgroup
merged=$run/merged

note() { echo "$*"; }
die() { note "failed $*"; exit 1; }
populated() { grep -q '^populated 1' "$1/cgroup.events" 2>/dev/null; }
# Waits (at most 10 s) until nothing lives in this cgroup, then removes what is below it.
empty() {
  local n=0
  while populated "$1"; do
    n=$((n + 1)); [ $n -gt 1000 ] && return 1
    sleep 0.01
  done
  find "$1" -mindepth 1 -depth -type d -exec rmdir {} + 2>/dev/null
  return 0
}

# Runs a program in a cgroup, to die with us.
inside() { exec bash -c 'echo 0 > "$0/cgroup.procs" && exec setpriv --pdeathsig KILL "$@"' "$@"; }

boot() {
  inside "$cg/host" env SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=1 \
    systemd-nspawn --quiet --register=no --keep-unit -D "$merged" --machine="$name" \
    --network-namespace-path=/run/netns/host --capability=CAP_NET_ADMIN \
    --resolv-conf=off --timezone=off --link-journal=no --console=pipe $binds \
    /stage2 </dev/null >>"$run/console.log" 2>&1 &
  follow $!
}

# Software emulation: where KVM answers at all its guests may hang, and every machine must give the same result.
# The test process has the disk (with the cache that a power cut empties) and the other end of the console's port; both
# sockets are named from RUN, as a socket's name may have 107 characters only. `host` is what the machine's network
# calls us: 10.213.0.1, where the binary cache listens. What is masked can do nothing here, for want of a device or a
# module, and is not started in a container either; lsm= and mitigations=off save a fifth of the time of a boot.
boot_machine() { # CLOCK: what the machine believes at its start, as qemu's -rtc takes it
  cd "$run" || exit 1
  local masked append="console=ttyS0 quiet panic=-1 net.ifnames=0 mitigations=off audit=0 lsm= cryptomgr.notests init_on_alloc=0"
  for masked in modprobe@{configfs,drm,efi_pstore,fuse}.service dev-{hugepages,mqueue}.mount sys-kernel-{debug,tracing}.mount; do
    append+=" systemd.mask=$masked"
  done
  inside "$cg/host" qemu-system-x86_64 -nodefaults -no-user-config -display none -no-reboot \
    -accel tcg,thread=multi -cpu max -smp 2 -m 768 -rtc "base=$1" \
    -kernel "$kernel" -initrd "$initrd" -append "$append" \
    -chardev file,id=console,path=console.log,append=on -serial chardev:console \
    -blockdev driver=nbd,node-name=disk,server.type=unix,server.path=disk.sock \
    -device virtio-blk-pci,drive=disk,write-cache=on \
    -device virtio-serial-pci -chardev socket,id=port,path=port.sock -device virtserialport,chardev=port \
    -netdev "user,id=net,net=$gateway/16,host=$gateway,ipv6=off" -device virtio-net-pci,netdev=net,romfile= \
    </dev/null >>console.log 2>&1 &
  follow $!
}

follow() {
  note "started $1"
  wait "$1"
  note "exited $?"
}

set_up() { # for a host and for a hub: a private /run, a cgroup, and the cache to serve
  # Nothing under the machine's /run is wanted here, and what is made here must leave nothing there.
  mount -t tmpfs tmpfs /run || die "mount /run"
  mkdir -p /run/systemd/nspawn /run/netns /run/boot
  umount -R /sys/fs/cgroup 2>/dev/null
  mount -t cgroup2 none /sys/fs/cgroup || die "mount cgroup2"
  mkdir -p "$cg/host" "$cg/aux" || die "make cgroup $cg"
  mkdir -p "$run"/{up,work,merged,cache,cache-up,cache-work}
  mount -t overlay overlay -o "lowerdir=$cache,upperdir=$run/cache-up,workdir=$run/cache-work" "$run/cache" || die "mount cache"
  ip link set lo up
}

# systemd starts each of these at every boot and every daemon-reload, a dozen programs that find nothing to do in a host of this
# kind. One that is measured keeps them.
mask_generators() {
  local generator masks=$merged/etc/systemd/system-generators
  mkdir -p "$masks"
  for generator in "$merged"/usr/lib/systemd/system-generators/*; do
    ln -s /dev/null "$masks/${generator##*/}"
  done
}

make_disk() {
  local lower="lowerdir=$layer:$root" up=$run/up work=$run/work
  if [ "$disk_limit" != 0 ]; then
    mount -t tmpfs -o "size=$disk_limit,mode=0755" tmpfs "$run/up" || die "mount disk"
    up=$run/up/up work=$run/up/work
    mkdir -p "$up" "$work"
  fi
  # Nothing here outlives this process, and no host of this kind loses unwritten pages: a sync that costs nothing keeps the
  # machine's disk, and with it every other host, from standing still for seconds.
  local syncs=,volatile
  [ "$real_syncs" = 0 ] || syncs=
  mount -t overlay overlay -o "$lower,upperdir=$up,workdir=$work$syncs" "$merged" || die "mount overlay"
  if [ "$boot_limit" != 0 ]; then
    mount -t tmpfs -o "size=$boot_limit,mode=0755" tmpfs /run/boot || die "mount /boot"
    cp -a "$merged/boot/." /run/boot/ || die "fill /boot"
    mount --bind /run/boot "$merged/boot" || die "bind /boot"
  fi
  [ "$real_syncs" != 0 ] || mask_generators
  tr -d - < /proc/sys/kernel/random/uuid > "$merged/etc/machine-id"
  echo "$name" > "$merged/etc/hostname"
  echo "$address $gateway" > "$merged/testbed/address"
}

connect() {
  ip netns add host || die "netns"
  ip -n host link set lo up
  ip link add "up$slot" type veth peer name eth0 netns host || die "veth"
  if [ "$net_pid" != 0 ]; then
    ip link set "up$slot" netns "$net_pid" || die "join net"
    hub ip link set "up$slot" master br0 up || die "join bridge"
  else
    ip addr add "$gateway/16" dev "up$slot"
    ip link set "up$slot" up
  fi
}

make_bridge() {
  ip link add br0 type bridge || die "bridge"
  ip addr add "$gateway/16" dev br0
  ip link set br0 up
}

serve() { # the cache, from this namespace: a host's reboot does not take it away
  [ "$net_pid" = 0 ] || return
  inside "$cg/aux" "$root/bin/busybox" httpd -f -p 8080 -h "$run/cache" </dev/null >/dev/null 2>&1 &
  httpd=$!
  # Whoever is told that it serves may ask at once.
  until (exec 3<> /dev/tcp/127.0.0.1/8080) 2>/dev/null; do
    kill -0 "$httpd" 2>/dev/null || die "the cache does not serve"
    sleep 0.01
  done
}

# The machine's default (128 inotify instances of one user) is used up by about twenty hosts; then PID 1 of the
# next ends with 255 and says nothing. Raised until the machine restarts; it costs nothing unless used.
raise_limits() {
  local file=/proc/sys/fs/inotify/max_user_instances
  [ "$(<$file)" -ge 8192 ] || echo 8192 > $file
}

clean() {
  echo 1 > "$cg/cgroup.kill" 2>/dev/null
  wait
  empty "$cg" && rmdir "$cg" 2>/dev/null
  umount -R -l "$merged" "$run/cache" 2>/dev/null
  umount -l "$run/up" 2>/dev/null
  # The owner's file goes last, and only if nothing else is left: a sweep takes no folder without it.
  find "$run" -mindepth 1 -maxdepth 1 ! -name owner -exec rm -rf --one-file-system --preserve-root=all {} + &&
    rm -rf --one-file-system "$run"
}

nobody=02:00:00:00:00:ff
hub_link=br0
[ "$net_pid" != 0 ] || hub_link=up$slot
hub() { if [ "$net_pid" = 0 ]; then "$@"; else nsenter -t "$net_pid" -n "$@"; fi; }

case $mode in
  boot) boot ;;
  boot-machine) boot_machine "$3" ;;
  keep | hub | machine)
    trap '' INT HUP TERM
    trap clean EXIT
    httpd=
    raise_limits
    set_up
    case $mode in
      hub) make_bridge ;;
      machine) ;; # its disk is served by the test process, its network by qemu
      *) make_disk; connect ;;
    esac
    serve
    note "ready"
    while read -r command argument; do
      case $command in
        start)
          empty "$cg/host"
          if [ "$mode" = machine ]; then
            setpriv --pdeathsig KILL bash "$0" boot-machine "$run" "$argument" < /dev/null &
            continue
          fi
          ip -n host link set eth0 down; ip -n host addr flush dev eth0
          setpriv --pdeathsig KILL bash "$0" boot "$run" < /dev/null &
          ;;
        cut) hub ip link set "up$slot" down; note "done" ;;
        restore)
          hub ip link set "up$slot" up
          ip -n host neigh del "$gateway" dev eth0 2>/dev/null
          hub ip neigh del "${address%/*}" dev "$hub_link" 2>/dev/null
          note "done"
          ;;
        # One way only: what is sent to a neighbour whose hardware address is nobody's vanishes without a word.
        mute) if ip -n host neigh replace "$gateway" lladdr "$nobody" dev eth0 nud permanent; then note "done"; else note "failed mute"; fi ;;
        deafen)
          if hub ip neigh replace "${address%/*}" lladdr "$nobody" dev "$hub_link" nud permanent
          then note "done"; else note "failed deafen"; fi
          ;;
        cache-down) [ -z "$httpd" ] || { kill -KILL "$httpd"; wait "$httpd"; httpd=; } 2>/dev/null; note "done" ;;
        cache-up) [ -n "$httpd" ] || serve; note "done" ;;
        *) note "failed unknown command $command" ;;
      esac
    done
    ;;
esac
