# NixOS-shaped systems without nixpkgs. One attribute of `systems` per knob; `index` builds them all and
# lists "name path". Builders are Debian's bash (sandbox = false).
{ assets, agent ? null }:
let
  drv = name: attrs: script: derivation ({
    inherit name;
    system = "x86_64-linux";
    builder = "/bin/bash";
    # The last command must be bash's own: an exec'd coreutils program closes stderr before it exits, and Nix
    # takes the closed log for the end and sends SIGKILL (seen once in some hundred builds).
    args = [ "-euc" (script + "\n:\n") ];
    PATH = "/usr/bin:/bin";
  } // attrs);
  words = builtins.concatStringsSep " ";
  lines = builtins.concatStringsSep "\n";
  names = builtins.attrNames;
  asset = file: name: builtins.path { path = assets + "/${file}"; inherit name; };

  # --- programs ---------------------------------------------------------------------------------
  switchProgram = asset "switch.sh" "switch-to-configuration-ng";
  bootLoader = asset "bootloader.sh" "systemd-boot-builder";
  preCheck = asset "precheck.sh" "pre-switch-checks";
  setUpEtc = asset "etc.pl" "setup-etc.pl";
  updateUsers = asset "users.pl" "update-users-groups.pl";
  script = name: text: drv name { inherit text; } ''printf '#!/bin/bash\n%s\n' "$text" > $out; chmod +x $out'';

  # A package with one program; the body of the program is of no interest.
  package = pname: version: drv "${pname}-${version}" { } ''
    mkdir -p $out/bin
    printf '#!/bin/bash\necho ${pname} ${version}\n' > $out/bin/${pname}
    chmod +x $out/bin/${pname}
  '';
  kernel = version: drv "linux-${version}" { } ''
    mkdir -p $out
    head -c 65536 /dev/zero | tr '\0' k > $out/bzImage
    echo ${version} >> $out/bzImage
  '';
  modules = version: drv "linux-${version}-modules" { } ''
    mkdir -p $out/lib/modules/${version}; echo ${version} > $out/lib/modules/${version}/modules.order
  '';
  initrd = version: drv "initrd-linux-${version}" { } ''
    mkdir -p $out
    head -c 32768 /dev/zero | tr '\0' i > $out/initrd
    echo ${version} >> $out/initrd
  '';
  systemd = version: drv "systemd-${version}" { } ''
    mkdir -p $out/lib/systemd $out/bin
    ln -s /lib/systemd/systemd $out/lib/systemd/systemd
    ln -s /bin/systemctl $out/bin/systemctl
    echo ${version} > $out/version
  '';
  dbus = version: drv "dbus-${version}" { } ''
    mkdir -p $out/bin; ln -s /usr/bin/dbus-daemon $out/bin/dbus-daemon; echo ${version} > $out/version
  '';
  firmware = package "linux-firmware" "20251021";

  # --- agents -----------------------------------------------------------------------------------
  placeholder = drv "nixfleet-agent-0.0.0" { } ''
    mkdir -p $out/bin; printf '#!/bin/bash\nexit 0\n' > $out/bin/nixfleet-agent; chmod +x $out/bin/nixfleet-agent
  '';
  agentPackage = if agent == null then placeholder else builtins.path { path = agent; name = "nixfleet-agent-0.1.0"; };
  brokenAgent = drv "nixfleet-agent-0.2.0" { } ''
    mkdir -p $out/bin
    printf '#!/bin/bash\necho "agent is broken" >&2\nexit 1\n' > $out/bin/nixfleet-agent; chmod +x $out/bin/nixfleet-agent
  '';
  hungAgent = drv "nixfleet-agent-0.2.1" { } ''
    mkdir -p $out/bin
    printf '#!/bin/bash\nexec sleep infinity\n' > $out/bin/nixfleet-agent; chmod +x $out/bin/nixfleet-agent
  '';
  # The same program under another store path: what an update of the agent is to its host.
  newerAgent = drv "nixfleet-agent-0.1.1" { package = agentPackage; } ''
    mkdir -p $out/bin; cp $package/bin/nixfleet-agent $out/bin/nixfleet-agent
  '';
  # An agent that is older than the state on its host. It is the same program, and what is newer is the state: in a mount
  # namespace of its own each process finds a copy of the file that says the next format. Nothing else of the host differs.
  olderAgent = drv "nixfleet-agent-0.0.9" {
    package = agentPackage;
    inside = ''
      state=/var/lib/nixfleet/state.json
      if [ -e $state ]; then
        mount -t tmpfs tmpfs /mnt
        sed '0,/"format": *1/s//"format": 2/' $state > /mnt/state.json
        mount --bind /mnt/state.json $state
      fi
    '';
  } ''
    mkdir -p $out/bin
    printf '#!/bin/bash\nset -e\n%s\nexec %s/bin/nixfleet-agent "$@"\n' "$inside" "$package" > $out/inside
    printf '#!/bin/bash\nexec unshare --mount %s/inside "$@"\n' "$out" > $out/bin/nixfleet-agent
    chmod +x $out/inside $out/bin/nixfleet-agent
  '';
  agentUnit = package: extra: lines [
    "[Unit]" "Description=NixFleet agent" "After=network-setup.service" "X-StopOnRemoval=false"
    "[Service]"
    (if agent == null then "Type=oneshot\nRemainAfterExit=yes" else "Type=notify\nRestart=on-failure\nRestartSec=1")
    "ExecStart=${package}/bin/nixfleet-agent run" "StateDirectory=nixfleet"
    # It is ready within milliseconds where the disk is not busy.
    "TimeoutStartSec=60"
    "Environment=PATH=/run/current-system/sw/bin:/usr/sbin:/usr/bin:/sbin:/bin" extra
  ];

  # --- units ------------------------------------------------------------------------------------
  unit = name: text: drv "unit-${name}" { inherit text; unit = name; }
    ''mkdir $out; printf '%s\n' "$text" > "$out/$unit"'';
  # A service of one line, that reports its starts and stops to /var/log/units.log.
  service = name: version: extra: lines [
    "[Unit]" "Description=${name} version ${version}"
    "[Service]" "Environment=V=${version}"
    "ExecStartPre=/bin/sh -c 'echo start ${name} $V >> /var/log/units.log'"
    "ExecStart=/bin/sleep infinity"
    "ExecStopPost=/bin/sh -c 'echo stop ${name} $V >> /var/log/units.log'"
    extra
  ];
  web = docroot: lines [
    "[Unit]" "Description=A service that answers /health on port 8000" "After=network-setup.service"
    "[Service]" "ExecStart=/bin/busybox httpd -f -p 8000 -h ${docroot}" "Restart=on-failure"
    # Started is who listens.
    "ExecStartPost=/bin/bash -c 'until { : < /dev/tcp/127.0.0.1/8000; } 2> /dev/null; do sleep 0.05; done'"
  ];
  site = version: drv "site-${version}" { } ''mkdir $out; echo "ok ${version}" > $out/health; echo home > $out/index.html'';
  emptySite = drv "site-empty" { } ''mkdir $out; echo home > $out/index.html'';
  network = up: lines [
    "[Unit]" "Description=Network set-up" "Before=network.target" "Wants=network.target"
    "[Service]" "Type=oneshot" "RemainAfterExit=yes" "ExecStart=${up}"
  ];
  networkUp = script "network-up" ''
    # The testbed writes the address of this host into /testbed/address ("address/prefix gateway").
    [ -e /testbed/address ] || exit 0
    read -r address gateway < /testbed/address
    ip link set lo up
    ip addr replace "$address" dev eth0
    ip link set eth0 up
    [ -z "$gateway" ] || ip route replace default via "$gateway"
  '';
  targets = {
    "multi-user.target" = lines [
      "[Unit]" "Description=Multi-User System" "Requires=basic.target" "Conflicts=rescue.service rescue.target"
      "After=basic.target rescue.service rescue.target" "AllowIsolate=yes"
    ];
    "timers.target" = lines [ "[Unit]" "Description=Timer Units" "DefaultDependencies=no" "Conflicts=shutdown.target" ];
    "sysinit-reactivation.target" = lines [ "[Unit]" "Description=Reactivate sysinit units" ];
  };
  baseUnits = targets // {
    "demo-a.service" = service "demo-a" "1" "";
    "demo-b.service" = service "demo-b" "1" "";
    "demo-r.service" = service "demo-r" "1" "X-StopIfChanged=false";
    "demo-l.service" = service "demo-l" "1" "X-ReloadIfChanged=true\nExecReload=/bin/sh -c 'echo reload demo-l >> /var/log/units.log'";
    "demo-n.service" = service "demo-n" "1" "X-RestartIfChanged=false";
    "demo-old.service" = service "demo-old" "1" "";
    "demo-tick.service" = lines [ "[Unit]" "Description=tick" "[Service]" "Type=oneshot" "ExecStart=/bin/true" ];
    "demo-tick.timer" = lines [ "[Unit]" "Description=tick now and then" "[Timer]" "OnBootSec=1h" "OnUnitActiveSec=1h" ];
    "web.service" = web (site "1");
    "network-setup.service" = network networkUp;
    "nixfleet-agent.service" = agentUnit agentPackage "X-RestartIfChanged=false";
  };
  goodUnits = version: builtins.removeAttrs baseUnits [ "demo-old.service" ] // {
    "demo-a.service" = service "demo-a" version "";
    "demo-b.service" = service "demo-b" version "";
    "demo-r.service" = service "demo-r" version "X-StopIfChanged=false";
    "demo-l.service" = service "demo-l" version "X-ReloadIfChanged=true\nExecReload=/bin/sh -c 'echo reload demo-l >> /var/log/units.log'";
    "demo-n.service" = service "demo-n" version "X-RestartIfChanged=false";
    "demo-new.service" = service "demo-new" version "";
    "web.service" = web (site version);
  };

  etcOf = { label, units, systemConf, files }: drv "etc" {
    inherit label files;
    # A store path of its own, so that it differs only if it does.
    systemConf = drv "etc-systemd-system.conf" { text = systemConf; } ''printf '%s\n' "$text" > $out'';
    unitNames = names units;
    unitFiles = map (n: unit n units.${n}) (names units);
  } ''
    u=$out/etc/systemd/system
    mkdir -p $u/multi-user.target.wants $u/timers.target.wants
    set -- $unitFiles
    for name in $unitNames; do
      ln -s $1/$name $u/$name; shift
      case $name in
        demo-tick.service|hand-started.service) ;;
        *.service) ln -s ../$name $u/multi-user.target.wants/$name ;;
        *.timer) ln -s ../$name $u/timers.target.wants/$name ;;
      esac
    done
    ln -s multi-user.target $u/default.target
    ln -s ../timers.target $u/multi-user.target.wants/timers.target
    ln -s $systemConf $out/etc/systemd/system.conf
    printf 'ID=nixos\nNAME=NixOS\nVERSION_ID="25.11"\nPRETTY_NAME="NixOS 25.11 (testbed %s)"\n' "$label" > $out/etc/os-release
    echo "$label" > $out/etc/testbed-label
    [ -z "$files" ] || for folder in $files/*; do
      mkdir -p $out/etc/''${folder##*/}
      for file in $folder/*; do ln -s $file $out/etc/''${folder##*/}/''${file##*/}; done
    done
  '';
  systemPath = label: packages: drv "system-path" { inherit packages; } ''
    mkdir -p $out/bin $out/lib/systemd
    for p in $packages; do
      for b in $p/bin/*; do [ -e "$b" ] && ln -sf $b $out/bin/; done
      [ -e $p/lib/systemd/systemd ] && ln -s $p/lib/systemd/systemd $out/lib/systemd/systemd
    done
    printf '%s\n' $packages > $out/packages
  '';

  atomicFlip = ''ln -sfn "$target" /run/current-system'';
  system = label: overrides:
    let
      a = {
        units = baseUnits;
        packages = [ (package "hello" "2.12.1") (package "htop" "3.3.0") (package "openssl" "3.4.0") ];
        agentPackage = agentPackage;
        kernel = "6.12.1"; systemd = "257.1"; dbus = "1.14.10"; kernelParams = "loglevel=4";
        arch = "x86_64-linux"; initInterface = "2";
        inhibitors = ''{"dbus-implementation":"dbus"}'';
        systemConf = "[Manager]";
        # A folder of folders, whose files the system has in /etc beside its own.
        files = "";
        # Shell, run by `activate` before the links move, between /etc and current-system, and at the end.
        before = ""; between = ""; after = "";
        flipTo = "$systemConfig"; flip = atomicFlip;
        bootLoader = bootLoader; preCheck = preCheck;
        wrapper = "";
        extra = "";
      } // overrides;
      kernelDrv = kernel a.kernel; systemdDrv = systemd a.systemd; dbusDrv = dbus a.dbus;
      sw = systemPath label (a.packages ++ [ a.agentPackage systemdDrv dbusDrv ]);
      etc = etcOf { inherit label; inherit (a) units systemConf files; };
    in drv "nixos-system-testhost-25.11.${label}" {
      inherit label etc sw kernelDrv systemdDrv switchProgram firmware;
      inherit (a) kernelParams arch initInterface inhibitors bootLoader preCheck;
      initrdDrv = initrd a.kernel; modulesDrv = modules a.kernel;
      activate = lines [
        "#!/bin/bash"
        "# NixOS's activation script in small: /etc first, /run/current-system last."
        ''systemConfig=@out@; export PATH=/usr/sbin:/usr/bin:/sbin:/bin; status=0''
        a.before
        ''ln -sfn "$systemConfig/etc" /etc/static''
        a.between
        ''target="${a.flipTo}"''
        a.flip
        a.after
        ''exit $status''
      ];
      wrapper = lines [
        "#!/bin/bash" "export OUT=@out@ TOPLEVEL=@out@ DISTRO_ID=nixos PRE_SWITCH_CHECK=${a.preCheck}"
        "export INSTALL_BOOTLOADER=${a.bootLoader} SYSTEMD=${systemdDrv}"
        (if a.wrapper == "" then ''exec ${switchProgram} "$@"'' else a.wrapper)
      ];
      triggers = ''{"kernel":"${kernelDrv}","firmware":"${firmware}","kernel-params":"${a.kernelParams}","dbus-implementation":"dbus"}'';
    } ''
      mkdir -p $out/bin
      fill() { printf '%s\n' "$1" | sed "s,@out@,$out,g" > $2; chmod +x $2; }
      fill "$activate" $out/activate
      fill "$wrapper" $out/bin/switch-to-configuration
      fill '#!/bin/bash
      exec @out@/activate @out@' $out/init
      fill '#!/bin/bash
      echo "would update /etc"' $out/dry-activate
      ln -s $etc/etc $out/etc
      ln -s $sw $out/sw
      ln -s $systemdDrv $out/systemd
      ln -s $kernelDrv/bzImage $out/kernel
      ln -s $initrdDrv/initrd $out/initrd
      ln -s $modulesDrv $out/kernel-modules
      ln -s $firmware $out/firmware
      printf %s "$kernelParams" > $out/kernel-params
      printf %s "$arch" > $out/system
      printf %s "$initInterface" > $out/init-interface-version
      printf %s "25.11.$label" > $out/nixos-version
      printf %s "$inhibitors" > $out/switch-inhibitors
      printf %s "$triggers" > $out/reboot-triggers
      ${a.extra}
    '';

  # --- nix-darwin -------------------------------------------------------------------------------
  # Its activation script in small: any failing step ends it, and /run/current-system is set last.
  darwinArch = "${builtins.head (builtins.split "-" builtins.currentSystem)}-darwin";
  darwin = label: overrides:
    let
      # Shell, run before /etc moves and between it and the flip.
      a = { before = ""; between = ""; flipTo = "$systemConfig"; } // overrides;
    in drv "darwin-system-25.11.${label}" {
      inherit label darwinArch;
      sw = systemPath label [ (package "hello" "2.12.2") agentPackage ];
      activate = lines [
        "#!/bin/bash"
        "set -e -o pipefail"
        ''systemConfig=@out@; export PATH=/usr/sbin:/usr/bin:/sbin:/bin''
        ''echo "begin $systemConfig" >> /var/log/darwin-runs.log''
        ''echo "setting up ${label}..."''
        a.before
        ''ln -sfn "$systemConfig/etc" /etc/static''
        a.between
        ''ln -sfn "${a.flipTo}" /run/current-system''
      ];
    } ''
      mkdir -p $out/etc
      printf '%s\n' "$activate" | sed "s,@out@,$out,g" > $out/activate
      chmod +x $out/activate
      ln -s $sw $out/sw
      printf %s "$darwinArch" > $out/system
      printf %s "25.11.$label" > $out/darwin-version
      printf %s $out > $out/systemConfig
    '';

  # What a knob does in `activate` must not hang a boot: those that would are skipped there.
  unlessBooting = text: ''if [ -z "$TESTBED_BOOT" ]; then ${text}; fi'';
  v2 = {
    units = goodUnits "2";
    packages = [ (package "hello" "2.12.2") (package "jq" "1.7.1") (package "openssl" "3.4.0") ];
  };
  with2 = overrides: v2 // overrides;
  failing = name: lines [
    "[Unit]" "Description=${name} fails at its start"
    "[Service]" "Type=oneshot" "RemainAfterExit=yes" "ExecStart=/bin/sh -c 'echo ${name} cannot start >&2; exit 3'"
  ];
  third = system "third" { };

  # --- big --------------------------------------------------------------------------------------
  numbers = n: builtins.genList (i: toString i) n;
  libraries = map (group: drv "lib${group}" { outputs = [ "out" ] ++ map (o: "part${o}") (numbers 99); } ''
    for o in $outputs; do p=''${!o}; [ $o = out ] && continue
      mkdir -p $p/lib; head -c 3000 /dev/zero | tr '\0' x > $p/lib/$o.so; echo $p >> $p/lib/$o.so; done
    mkdir -p $out
    for o in $outputs; do [ $o = out ] || echo ''${!o}; done > $out/parts
  '') (numbers 11);
  # The aggregate keeps every output alive by name: `out` lists its siblings.
  bigUnits = version: builtins.listToAttrs (map
    (i: { name = "big-${i}.service"; value = service "big-${i}" version ""; }) (numbers 20));
  # What a switch of NixOS does on a host of the usual size beside starting what has changed: files in /etc, users and
  # groups, and the service manager's look at many units that stay as they are.
  usualFiles = drv "etc-files" { } ''
    for folder in pam.d ssl terminfo udev zoneinfo; do mkdir -p $out/testbed-$folder
      for i in $(seq 50); do echo "$folder $i" > $out/testbed-$folder/file-$i; done; done
  '';
  usualUsers = drv "users-groups" { } ''
    for i in $(seq 40); do echo "group testbed-$i"; echo "user testbed-$i"; done > $out
    for i in $(seq 20); do echo "group shared-$i testbed-$i,testbed-$((i + 20))"; done >> $out
  '';
  steadyUnits = builtins.listToAttrs (map (i: { name = "steady-${i}.service"; value = lines [
    "[Unit]" "Description=steady ${i}" "After=network.target"
    "[Service]" "Type=oneshot" "RemainAfterExit=yes" "ExecStart=/bin/true" ]; }) (numbers 200));
  big = label: version: system label {
    units = baseUnits // steadyUnits // bigUnits version;
    files = usualFiles;
    before = "perl ${updateUsers} ${usualUsers}";
    between = "perl ${setUpEtc}";
    packages = [ (package "hello" "2.12.${version}") ] ++ libraries;
  };

  systems = {
    base = system "base" { };
    good = system "good" v2;
    good3 = system "good3" {
      units = goodUnits "3";
      packages = [ (package "hello" "2.13.0") (package "jq" "1.8.0") (package "openssl" "3.5.0") ];
    };
    inherit third;
    twin = system "twin" { };
    removed-unit = system "removed-unit" { units = builtins.removeAttrs baseUnits [ "demo-old.service" ]; };
    unit-fails = system "unit-fails" (with2 { units = goodUnits "2" // { "demo-b.service" = failing "demo-b"; }; });
    new-unit-fails = system "new-unit-fails" (with2 { units = goodUnits "2" // { "demo-fail.service" = failing "demo-fail"; }; });
    unit-slow = system "unit-slow" (with2 { units = goodUnits "2" // { "demo-slow.service" = lines [
      "[Unit]" "Description=ready after 5 s" "[Service]" "Type=oneshot" "RemainAfterExit=yes" "ExecStart=/bin/sleep 5" ]; }; });
    unit-fails-late = system "unit-fails-late" (with2 { units = goodUnits "2" // { "demo-late.service" = lines [
      "[Unit]" "Description=fails 4 s after the switch that started it"
      # The last line of a switch's log is that of its end; nobody knows how long one takes.
      "[Service]" "ExecStart=/bin/sh -c 'until tail -n 1 /var/log/switch-runs.log | grep -q \" end code=\"; do sleep 0.2; done; sleep 4; exit 7'"
    ]; }; });
    hand-started = system "hand-started" { units = baseUnits // { "hand-started.service" = service "hand-started" "1" ""; }; };
    hand-started-fails = system "hand-started-fails" { units = baseUnits // { "hand-started.service" = failing "hand-started"; }; };
    hangs = system "hangs" (with2 { before = unlessBooting "sleep infinity"; });
    # Whoever has something to do meanwhile holds it up by a file.
    slow = system "slow" (with2 { before = unlessBooting "sleep 12; while [ -e /run/hold-activate ]; do sleep 0.1; done"; });
    precheck-fails = system "precheck-fails" (with2 { preCheck = script "pre-switch-checks" "echo 'a check says no'; exit 1"; });
    bootloader-fails = system "bootloader-fails" (with2 { bootLoader = script "boot-loader" "echo 'OSError: [Errno 28] No space left on device' >&2; exit 1"; });
    exits-1-after-flip = system "exits-1-after-flip" (with2 { wrapper = ''STAND_IN_EXIT_AFTER_ACTIVATE=1 exec ${switchProgram} "$@"''; });
    activate-fails-after-flip = system "activate-fails-after-flip" (with2 { after = "echo 'a snippet failed' >&2; status=1"; });
    activate-fails-before-flip = system "activate-fails-before-flip" (with2 { between = unlessBooting "echo 'a snippet failed' >&2; exit 1"; });
    repoints-profile = system "repoints-profile" (with2 { between = unlessBooting "ln -sfn system-1-link /nix/var/nix/profiles/system"; });
    flips-to-third = system "flips-to-third" (with2 { flipTo = "${third}"; });
    restarts-agent = system "restarts-agent" (with2 { units = goodUnits "2" // { "nixfleet-agent.service" = agentUnit agentPackage "Environment=RESTARTED=1"; }; });
    agent-broken = system "agent-broken" (with2 {
      agentPackage = brokenAgent; units = goodUnits "2" // { "nixfleet-agent.service" = agentUnit brokenAgent ""; }; });
    kernel-agent-broken = system "kernel-agent-broken" (with2 {
      kernel = "6.12.9";
      agentPackage = brokenAgent; units = goodUnits "2" // { "nixfleet-agent.service" = agentUnit brokenAgent ""; }; });
    agent-newer = system "agent-newer" (with2 {
      agentPackage = newerAgent; units = goodUnits "2" // { "nixfleet-agent.service" = agentUnit newerAgent "X-RestartIfChanged=false"; }; });
    agent-broken-kept = system "agent-broken-kept" (with2 {
      agentPackage = brokenAgent; units = goodUnits "2" // { "nixfleet-agent.service" = agentUnit brokenAgent "X-RestartIfChanged=false"; }; });
    agent-hangs = system "agent-hangs" (with2 {
      agentPackage = hungAgent; units = goodUnits "2" // { "nixfleet-agent.service" = agentUnit hungAgent "TimeoutStartSec=10"; }; });
    agent-removed = system "agent-removed" (with2 { units = builtins.removeAttrs (goodUnits "2") [ "nixfleet-agent.service" ]; });
    reexecs = system "reexecs" (with2 { systemConf = "[Manager]\nDefaultTimeoutStopSec=80s"; });
    breaks-network = system "breaks-network" (with2 {
      units = goodUnits "2" // { "network-setup.service" = network "/bin/true"; };
      before = ''
        ip -o link | while IFS=' :@' read -r _ l _; do [ $l = lo ] || ip link set $l down; done''; });
    other-kernel = system "other-kernel" (with2 { kernel = "6.12.9"; });
    other-systemd = system "other-systemd" (with2 { systemd = "257.9"; });
    other-dbus = system "other-dbus" (with2 { dbus = "1.16.2"; });
    other-inhibitor = system "other-inhibitor" (with2 { inhibitors = ''{"dbus-implementation":"broker"}''; });
    list-inhibitors = system "list-inhibitors" (with2 { inhibitors = "${systemd "257.1"}\n${dbus "1.14.10"}\n"; });
    no-inhibitors = system "no-inhibitors" (with2 { extra = "rm $out/switch-inhibitors $out/reboot-triggers"; });
    other-init = system "other-init" (with2 { initInterface = "3"; });
    floods = system "floods" (with2 { before = unlessBooting ''
      printf '\xff\xfe not utf-8 \xc3\x28\n'; printf '\xff\xfe not utf-8 \xc3\x28\n' >&2
      head -c 3000000 /dev/zero | tr '\0' y; echo
      yes 'out: the quick brown fox jumps over the lazy dog, again and again and again' | head -c 20000000
      yes 'err: the quick brown fox jumps over the lazy dog, again and again and again' | head -c 20000000 >&2; true''; });
    unlinks-first = system "unlinks-first" (with2 { flip = ''/bin/busybox rm -f /run/current-system; sleep 0.2; /bin/busybox ln -sfn "$target" /run/current-system''; });
    not-a-system = drv "hello-2.12.1-docs" { } "mkdir -p $out/share; echo hello > $out/share/hello";
    wrong-architecture = system "wrong-architecture" (with2 { arch = "aarch64-linux"; });
    probe-404 = system "probe-404" (with2 { units = goodUnits "2" // { "web.service" = web emptySite; }; });
    probe-silent = system "probe-silent" (with2 { units = goodUnits "2" // { "web.service" = lines [
      "[Unit]" "Description=listens to nobody" "[Service]" "ExecStart=/bin/sleep infinity" ]; }; });
    # `activate` waits until the reader is gone, so that what is said after it finds nobody.
    broken-pipe = system "broken-pipe" (with2 {
      wrapper = lines [ "rm -f /run/reader-is-gone"
        ''exec ${switchProgram} "$@" 2> >(sed -u '/^activating/q' > /dev/null; exec < /dev/null; touch /run/reader-is-gone)'' ];
      after = unlessBooting "until [ -e /run/reader-is-gone ]; do sleep 0.01; done"; });
    killed-before-flip = system "killed-before-flip" (with2 { between = unlessBooting "kill -KILL $PPID; exit 0"; });
    killed-after-flip = system "killed-after-flip" (with2 { after = unlessBooting "kill -KILL $PPID"; });
    darwin-good = darwin "darwin-good" { };
    darwin-fails = darwin "darwin-fails" { between = "echo 'a step failed' >&2; false"; };
    darwin-hangs = darwin "darwin-hangs" { between = "echo 'about to hang'; sleep infinity"; };
    darwin-slow = darwin "darwin-slow" { between = "sleep 12; while [ -e /run/hold-activate ]; do sleep 0.1; done"; };
    darwin-floods = darwin "darwin-floods" { before = ''
      printf '\xff\xfe not utf-8 \xc3\x28\n'; printf '\xff\xfe not utf-8 \xc3\x28\n' >&2
      head -c 3000000 /dev/zero | tr '\0' y; echo
      yes 'out: the quick brown fox jumps over the lazy dog, again and again and again' | head -c 40000000 || true
      yes 'err: the quick brown fox jumps over the lazy dog, again and again and again' | head -c 40000000 >&2 || true
      echo 'the flood is over'
    ''; };
    darwin-repoints = darwin "darwin-repoints" { between = "ln -sfn system-1-link /nix/var/nix/profiles/system"; };
    darwin-third = darwin "darwin-third" { flipTo = "${third}"; };
    big-a = big "big-a" "1";
    big-b = big "big-b" "2";
    agent-older = system "agent-older" (with2 {
      agentPackage = olderAgent; units = goodUnits "2" // { "nixfleet-agent.service" = agentUnit olderAgent "X-RestartIfChanged=false"; }; });
  };
in {
  inherit systems;
  index = drv "index" { list = lines (map (n: "${n} ${systems.${n}}") (names systems)); } ''printf '%s\n' "$list" > $out'';
}
