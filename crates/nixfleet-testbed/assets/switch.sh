#!/bin/bash
# Stand-in for NixOS's switch-to-configuration (nixpkgs 0145c6da, system part).
#
# Behaves as facts/switch.md measured the real one wherever an agent can see it: order, exit codes,
# lock, lists in /run/nixos, words on stderr, journal lines. Every phase is also appended to
# /var/log/switch-runs.log (uptime in ms, pid, action, toplevel, what), so that tests can count fires.
# bash dies at SIGTERM at once and leaves a running `activate` behind, as the real program does.

units_dir=/etc/systemd/system
lists=/run/nixos
runs_log=/var/log/switch-runs.log
LC_ALL=C

# A Rust program re-opens closed standard streams; a broken pipe is what makes it panic.
[ -e /proc/self/fd/1 ] || exec 1>/dev/null
[ -e /proc/self/fd/2 ] || exec 2>/dev/null
trap ':' PIPE

phase() {
  local up
  read -r up _ < /proc/uptime
  { echo "$((10#${up/./} * 10)) $$ $action ${TOPLEVEL-} $*" >> "$runs_log"; } 2>/dev/null
}
# The order of the two redirections matters: the words go to stderr, bash's complaint about it nowhere.
say() { printf '%s\n' "$*" >&2 2>/dev/null || { phase "panic broken-pipe"; exit 101; }; }
# With the wall clock in microseconds: /proc/uptime is too coarse to measure how soon an end is noticed.
end() { phase "end code=$1 at=${EPOCHREALTIME/./}"; exit "$1"; }
# The lock belongs to this program alone: no child may inherit it.
child() { "$@" 9>&-; }
journal() { child logger -t nixos -p "user.$1" -- "$2" 2>/dev/null; }

usage() {
  say "Usage: switch-to-configuration [check|switch|boot|test|dry-activate]
check:        run pre-switch checks and exit
switch:       make the configuration the boot default and activate now
boot:         make the configuration the boot default
test:         activate the configuration, but don't make it the boot default
dry-activate: show what would be done if this configuration were activated
"
  exit 1
}

action=${1-}
case $action in check | switch | boot | test | dry-activate) ;; *) usage ;; esac
if [ "$EUID" != 0 ]; then say "Error: switch-to-configuration must be run as the root user"; exit 1; fi
for v in OUT TOPLEVEL DISTRO_ID PRE_SWITCH_CHECK INSTALL_BOOTLOADER SYSTEMD; do
  if [ -z "${!v+x}" ]; then say "Error: missing required environment variable \$$v"; exit 1; fi
done
export NIXOS_ACTION=$action

# The lock must be taken by this very process, or /proc/locks does not show it (the kernel leaves out locks whose
# taker is gone, which the program `flock` is). perl can flock and exec; the second time round it is held on 9.
# It sets the folder's mode too: each program more would cost milliseconds that the real one does not take.
take_lock='
  BEGIN { $^F = 255 }
  my ($lists, $script, @args) = @ARGV;
  chmod(0755, $lists) or exit 1;
  open(my $lock, ">>&=", 9) or exit 2;
  $ENV{STAND_IN_LOCK} = flock($lock, 2 | 4) ? "held" : "busy";
  exec { "/bin/bash" } "/bin/bash", $script, @args'

case ${STAND_IN_LOCK-} in
  '')
    while IFS= read -r line; do cgroup=$line; done < /proc/self/cgroup
    phase "begin cgroup=$cgroup invocation=${INVOCATION_ID-none}"
    if [ ! -f /etc/NIXOS ] && ! grep -qE "^ID=\"?$DISTRO_ID\"?$" /etc/os-release; then
      say "This is not a NixOS installation!"
      end 2
    fi
    [ -d "$lists" ] || mkdir -p "$lists" || end 1
    # Readable by all, written by root, as Rust's OpenOptions makes it.
    umask 022
    if ! exec 9>> "$lists/switch-to-configuration.lock"; then say "Could not open lock"; end 2; fi
    exec perl -e "$take_lock" -- "$lists" "${BASH_SOURCE[0]}" "$@"
    ;;
  busy) say "Could not acquire lock"; end 11 ;;
esac
unset STAND_IN_LOCK
phase "locked"

if [ "${NIXOS_NO_CHECK-}" != 1 ]; then
  phase "precheck"
  if ! child "$PRE_SWITCH_CHECK" "$TOPLEVEL" "$action"; then
    say "Pre-switch checks failed"
    say "Error: Failed to do pre-switch checks"
    end 1
  fi
fi
[ "$action" = check ] && end 0

if [ "$action" = switch ] || [ "$action" = boot ]; then
  phase "bootloader"
  if ! child "$INSTALL_BOOTLOADER" "$TOPLEVEL"; then
    say "Error: Failed to install bootloader"
    end 1
  fi
fi
if [ "${NIXOS_NO_SYNC-}" != 1 ]; then
  child sync -f /nix/store || { say "Error: Failed to sync /nix/store"; end 1; }
fi
[ "$action" = boot ] && end 0

current_init=$(cat /run/current-system/init-interface-version 2>/dev/null 9>&-)
if [ ! -e "$TOPLEVEL/init-interface-version" ]; then
  say "Error: File init-interface-version should exist"
  end 1
fi
if [ "$current_init" != "$(cat "$TOPLEVEL/init-interface-version" 9>&-)" ]; then
  say "Warning: the new NixOS configuration has an ‘init’ that is
incompatible with the current configuration.  The new configuration
won't take effect until you reboot the system.
"
  end 100
fi
if [ ! -S /run/dbus/system_bus_socket ]; then
  say "Error: Failed to open dbus connection"
  end 1
fi

# --- what differs -----------------------------------------------------------------------------

declare -A stop=() start=() restart=() reload=() skip=() filter=() active=()

read_list() {
  local -n into=$2
  local unit
  [ -e "$lists/$1" ] || return 0
  while read -r unit; do [ -n "$unit" ] && into[$unit]=1; done < "$lists/$1"
}
read_list start-list start
read_list restart-list restart
read_list reload-list reload

record() { [ "$action" = dry-activate ] || echo "$2" >> "$lists/$1"; }
unrecord() {
  [ "$action" = dry-activate ] && return
  [ -e "$lists/$1" ] || return
  local kept=() line
  while read -r line; do [ "$line" = "$2" ] || kept+=("$line"); done < "$lists/$1"
  if [ ${#kept[@]} = 0 ]; then : > "$lists/$1"; else printf '%s\n' "${kept[@]}" > "$lists/$1"; fi
}

# Names in the order the real program prints them: sorted without regard to case, comma between.
names() {
  local -n of=$1
  local -a sorted
  mapfile -t sorted < <(printf '%s\n' "${!of[@]}" | sort -f 9>&-)
  local IFS=,
  local joined="${sorted[*]}"
  printf '%s' "${joined//,/, }"
}
shown() {
  local -n all=$1
  local unit
  declare -gA visible=()
  for unit in "${!all[@]}"; do [ -n "${filter[$unit]-}" ] || visible[$unit]=1; done
}

# parse FILE UNIT ARRAY: "Section/Key" -> its values, one per line (drop-ins after the file).
parse() {
  local -n info=$3
  local file section line key
  info=()
  for file in "$1/$2" "$1/$2.d"/*.conf; do
    [ -e "$file" ] || continue
    section=
    while IFS= read -r line || [ -n "$line" ]; do
      case $line in
        '' | '#'* | ';'*) ;;
        '['*']') section=${line#[} section=${section%]} ;;
        *=*) key="$section/${line%%=*}"; info[$key]+="${line#*=}"$'\n' ;;
      esac
    done < "$file"
  done
}
truth() { # truth ARRAY Section/Key default
  local -n of=$1
  local value=${of[$2]-}
  value=${value%$'\n'} value=${value##*$'\n'}
  [ -z "${of[$2]+x}" ] && value=$3
  case $value in 1 | yes | true | on) return 0 ;; *) return 1 ;; esac
}

ignored=" Unit/X-Reload-Triggers Unit/Description Unit/Documentation Unit/OnFailure Unit/OnSuccess \
Unit/OnFailureJobMode Unit/IgnoreOnIsolate Unit/StopWhenUnneeded Unit/RefuseManualStart \
Unit/RefuseManualStop Unit/AllowIsolate Unit/CollectMode Unit/SourcePath "
# Sets $verdict to equal, restart or reload.
compare() {
  local key
  verdict=equal
  for key in "${!old[@]}"; do
    if [ -z "${new[$key]+x}" ]; then
      [[ $ignored == *" $key "* || $key == Service/ExecReload ]] && continue
      verdict=restart; return
    fi
    [ "${old[$key]}" = "${new[$key]}" ] && continue
    case $key in Unit/X-Reload-Triggers | Service/ExecReload | Mount/Options) verdict=reload; continue ;; esac
    [[ $ignored == *" $key "* ]] && continue
    verdict=restart; return
  done
  for key in "${!new[@]}"; do
    [ -n "${old[$key]+x}" ] && continue
    case $key in Unit/X-Reload-Triggers | Service/ExecReload) verdict=reload; continue ;; esac
    [[ $ignored == *" $key "* ]] && continue
    verdict=restart; return
  done
}

modified() {
  local unit=$1 socket=${1%.service}.socket by_socket=
  case $unit in
    sysinit.target | basic.target | multi-user.target | graphical.target | *.path | *.slice | *.socket) return ;;
    *.mount) restart[$unit]=1; record restart-list "$unit"; return ;;
  esac
  if truth new Service/X-ReloadIfChanged no && [ -z "${stop[$unit]-}${restart[$unit]-}" ]; then
    reload[$unit]=1; record reload-list "$unit"; return
  fi
  if ! truth new Service/X-RestartIfChanged yes || truth new Unit/RefuseManualStop no ||
    truth new Unit/X-OnlyManualStart no; then
    skip[$unit]=1; return
  fi
  if ! truth new Service/X-StopIfChanged yes || [[ $unit != *.service ]]; then
    restart[$unit]=1; record restart-list "$unit"
  else
    if [ -n "${active[$socket]-}" ]; then
      stop[$socket]=1
      if [ -e "$TOPLEVEL$units_dir/$socket" ]; then start[$socket]=1; record start-list "$socket"; by_socket=1; fi
    elif [ -e "$TOPLEVEL$units_dir/$socket" ]; then
      by_socket=1
    fi
    if [ -z "$by_socket" ]; then start[$unit]=1; record start-list "$unit"; fi
    stop[$unit]=1
  fi
  if [ -n "${reload[$unit]-}" ]; then unset "reload[$unit]"; unrecord reload-list "$unit"; fi
}

gone() { [ ! -e "$1" ] || [ "$1" -ef /dev/null ]; }

target() {
  local unit=$1
  case $unit in suspend.target | hibernate.target | hybrid-sleep.target) ;; *)
    if ! truth new Unit/RefuseManualStart no && ! truth new Unit/X-OnlyManualStart no; then
      start[$unit]=1; record start-list "$unit"
      [ "${STC_DISPLAY_ALL_UNITS-}" = 1 ] || filter[$unit]=1
    fi ;;
  esac
  if truth new Unit/X-StopOnReconfiguration no; then stop[$unit]=1; fi
}

list_units() { child systemctl list-units --plain --no-legend --no-pager --full; }

declare -A old=() new=()
# `9>&-` must be outside: a process substitution is a child too.
while read -r unit _ state _; do
  [ "$state" = inactive ] || active[$unit]=$state
done < <(list_units 9>&-)
for unit in "${!active[@]}"; do
  case ${active[$unit]} in active | activating) ;; *) continue ;; esac
  base=$unit
  if [[ $unit == *@?*.* ]] && [ ! -e "$units_dir/$unit" ] && [ ! -e "$TOPLEVEL$units_dir/$unit" ]; then
    base="${unit%%@*}@.${unit##*.}"
  fi
  [ -e "$units_dir/$base" ] || continue
  if gone "$TOPLEVEL$units_dir/$base"; then
    parse "$units_dir" "$base" old
    if truth old Unit/X-StopOnRemoval yes; then stop[$unit]=1; fi
  elif [[ $unit == *.target ]]; then
    parse "$TOPLEVEL$units_dir" "$base" new
    target "$unit"
  elif [ "$units_dir/$base" -ef "$TOPLEVEL$units_dir/$base" ]; then
    :
  else
    parse "$units_dir" "$base" old
    parse "$TOPLEVEL$units_dir" "$base" new
    compare
    case $verdict in
      restart) modified "$unit" ;;
      reload) [ -n "${restart[$unit]-}" ] || { reload[$unit]=1; record reload-list "$unit"; } ;;
    esac
  fi
done

# PID 1's own link in the toplevel stands for /proc/1/exe: every stand-in systemd is Debian's binary.
current_pid1=$(readlink -f /run/current-system/systemd 9>&-)
new_pid1=$(readlink -f "$SYSTEMD" 9>&-)
[ -e "$SYSTEMD/lib/systemd/systemd" ] || end 2
reexec=
[ "$current_pid1" = "$new_pid1" ] || reexec=1
[ "$(readlink -f /etc/systemd/system.conf 9>&-)" = "$(readlink -f "$TOPLEVEL/etc/systemd/system.conf" 9>&-)" ] || reexec=1

if [ "$action" = dry-activate ]; then
  shown stop; [ ${#visible[@]} = 0 ] || say "would stop the following units: $(names visible)"
  [ ${#skip[@]} = 0 ] || say "would NOT stop the following changed units: $(names skip)"
  say "would activate the configuration..."
  child "$OUT/dry-activate" "$OUT"
  [ -z "$reexec" ] || say "would restart systemd"
  [ ${#reload[@]} = 0 ] || say "would reload the following units: $(names reload)"
  [ ${#restart[@]} = 0 ] || say "would restart the following units: $(names restart)"
  shown start; [ ${#visible[@]} = 0 ] || say "would start the following units: $(names visible)"
  end 0
fi

# --- doing it ---------------------------------------------------------------------------------

journal info "switching to system configuration $TOPLEVEL"
code=0
failed_jobs() { # failed_jobs VERB UNIT...: says which of these did not reach their state
  local verb=$1 unit state
  shift
  code=4
  for unit in "$@"; do
    state=$(child systemctl show --property=ActiveState,SubState --value "$unit" | tr '\n' ' ' 9>&-)
    case $state in active*) ;; *) say "Failed to $verb $unit" ;; esac
  done
}

if [ ${#stop[@]} != 0 ]; then
  shown stop; [ ${#visible[@]} = 0 ] || say "stopping the following units: $(names visible)"
  phase "stop ${!stop[*]}"
  child systemctl stop "${!stop[@]}" 2>/dev/null
fi
[ ${#skip[@]} = 0 ] || say "NOT restarting the following changed units: $(names skip)"

say "activating the configuration..."
phase "activate begin"
if [ -e "$OUT/activate" ]; then
  if ! child "$OUT/activate" "$OUT"; then
    say "Failed to run activate script"
    code=2
  fi
fi
phase "activate end current=$(readlink /run/current-system 9>&-)"
# Set by one knob's wrapper: dies as a time-out of daemon-reload does.
if [ -n "${STAND_IN_EXIT_AFTER_ACTIVATE-}" ]; then
  say "Error: systemd daemon reload failed, timeout after 180s"
  end 1
fi

if [ -n "$reexec" ]; then
  say "restarting systemd..."
  phase "reexec"
  child systemctl daemon-reexec 2>/dev/null
fi
child systemctl reset-failed 2>/dev/null
phase "daemon-reload"
child systemctl daemon-reload || { say "Error: Failed to reload systemd"; end 1; }

if ! users=$(child busctl --timeout=25 call org.freedesktop.login1 /org/freedesktop/login1 \
  org.freedesktop.login1.Manager ListUsers 2>&1); then
  say "Unable to list users with logind: $users"
  end 11
fi

say "restarting sysinit-reactivation.target"
if ! child systemctl restart sysinit-reactivation.target 2>/dev/null; then
  say "Failed to restart sysinit-reactivation.target: Unit sysinit-reactivation.target not found."
  code=4
fi

for unit in "${!reload[@]}"; do
  child systemctl is-active --quiet "$unit" && continue
  parse "$TOPLEVEL$units_dir" "$unit" new
  if [ -e "$TOPLEVEL$units_dir/$unit" ] && ! truth new Unit/RefuseManualStart no; then
    start[$unit]=1; record start-list "$unit"
  fi
  unset "reload[$unit]"; unrecord reload-list "$unit"
done
if [ ${#reload[@]} != 0 ]; then
  say "reloading the following units: $(names reload)"
  phase "reload ${!reload[*]}"
  child systemctl reload "${!reload[@]}" 2>/dev/null || failed_jobs reload "${!reload[@]}"
  rm -f "$lists/reload-list" 9>&-
fi
if [ ${#restart[@]} != 0 ]; then
  say "restarting the following units: $(names restart)"
  phase "restart ${!restart[*]}"
  child systemctl restart "${!restart[@]}" 2>/dev/null || failed_jobs restart "${!restart[@]}"
  rm -f "$lists/restart-list" 9>&-
fi
shown start; [ ${#visible[@]} = 0 ] || say "starting the following units: $(names visible)"
phase "start ${!start[*]}"
if [ ${#start[@]} != 0 ]; then
  child systemctl start "${!start[@]}" 2>/dev/null || failed_jobs start "${!start[@]}"
fi
rm -f "$lists/start-list" 9>&-

# The real one waits until the bus has been silent for this long.
phase "settle"
child sleep 0.25

declare -A failed=() fresh=()
while read -r unit _ state sub _; do
  if [ "$state" = failed ]; then failed[$unit]=1; continue; fi
  if [ "$sub" = auto-restart ] && [ "$(child systemctl show --property=ExecMainStatus --value "$unit")" != 0 ]; then
    failed[$unit]=1; continue
  fi
  if [ -z "${active[$unit]-}" ] && [[ $unit != *.scope ]]; then fresh[$unit]=1; fi
done < <(list_units 9>&-)
[ ${#fresh[@]} = 0 ] || say "the following new units were started: $(names fresh)"
if [ ${#failed[@]} != 0 ]; then
  say "warning: the following units failed: $(names failed)"
  child systemctl status --no-pager --full "${!failed[@]}"
  code=4
fi
if [ "$code" = 0 ]; then
  journal info "finished switching to system configuration $TOPLEVEL"
else
  journal err "switching to system configuration $TOPLEVEL failed (status $code)"
fi
end "$code"
