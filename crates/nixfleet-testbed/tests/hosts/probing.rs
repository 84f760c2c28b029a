//! Probes, hooks and restarts on a real host: what only a real systemd and a real logind show.
//!
//! `nixfleet-agent attempt` of the test build does one thing that the reducer asks for.

use std::time::{Duration, Instant};

use nixfleet_testbed::{Flavour, Host, Output, System};
use serde_json::{Value, json};

use crate::common::{AGENT, LIMIT, activate, assert_rests_on, host, hosts_run};

/// The unit in which the agent of these tests runs, as it does on a host.
const UNIT: &str = "probing.service";
/// What it says, a line of JSON for each report.
const SAID: &str = "/run/said";

fn probe(name: &str, kind: &Value, timeout_secs: u32) -> Value {
    json!({
        "name": name, "kind": kind, "interval_secs": 1, "timeout_secs": timeout_secs, "after_secs": 0, "failures": 2,
    })
}

fn exec(script: &str) -> Value {
    json!({ "exec": { "argv": ["/bin/sh", "-c", script] } })
}

fn unit(name: &str) -> Value {
    json!({ "unit": { "unit": name } })
}

/// Starts an agent that runs these probes, in a unit of its own.
fn start_probes(host: &Host, probes: &[Value]) {
    let probes = Value::from(probes.to_vec()).to_string();
    let output = format!("--property=StandardOutput=file:{SAID}");
    let start =
        ["systemd-run", "--quiet", "--collect", "--unit", UNIT, &output, AGENT, "attempt", "probes", &probes];
    let started = host.run(&start).expect("it runs");
    assert_eq!(started.code, 0, "{started}");
}

/// The reports of a probe so far: what each run found, and by what.
fn reports(host: &Host, probe: &str) -> Vec<(String, String)> {
    let said = host.read_file(SAID).unwrap_or_default();
    // The last line may be half written.
    let all = said.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    all.filter(|report| report["probe"] == probe)
        .map(|report| (text(&report["result"]), text(&report["evidence"])))
        .collect()
}

/// Waits until the newest reports of a probe are what they should be.
fn await_reports(host: &Host, probe: &str, what: &str, good: impl Fn(&[(String, String)]) -> bool) {
    let met = host.wait_until(what, LIMIT, |host| good(&reports(host, probe)));
    assert!(met.is_ok(), "{what}: {:?}\n{}", reports(host, probe), host.journal(UNIT).unwrap_or_default());
}

fn passed(reports: &[(String, String)]) -> bool {
    reports.last().is_some_and(|(result, _)| result == "passed")
}

fn failed_twice(reports: &[(String, String)]) -> bool {
    reports.len() >= 2 && reports.iter().rev().take(2).all(|(result, _)| result == "failed")
}

/// Writes a unit of the test's own and loads it.
fn write_unit(host: &Host, name: &str, text: &str) {
    host.write_file(&format!("/run/systemd/system/{name}"), text).expect("written");
    host.run(&["systemctl", "daemon-reload"]).expect("it runs").success().expect("loaded");
}

fn a_restart_loop_is_caught(flavour: Flavour) {
    if !hosts_run() {
        return;
    }
    let host = host(flavour);
    // It is active almost all the time: every single look finds it well.
    let flaps = "[Unit]\nStartLimitIntervalSec=0\n[Service]\nExecStart=/bin/sleep 2\nRestart=always\nRestartSec=100ms\n";
    write_unit(&host, "flaps.service", flaps);
    write_unit(&host, "job.service", "[Service]\nType=oneshot\nExecStart=/bin/true\n");
    write_unit(&host, "job.timer", "[Timer]\nOnActiveSec=1h\n");
    write_unit(&host, "never.service", "[Service]\nType=oneshot\nExecStart=/bin/true\n");
    host.run(&["systemctl", "start", "flaps.service", "job.timer", "job.service"])
        .expect("it runs")
        .success()
        .expect("started");
    let units =
        ["flaps", "job", "never", "demo-a"].map(|name| probe(name, &unit(&format!("{name}.service")), 10));
    start_probes(&host, &units);
    await_reports(&host, "flaps", "the loop is a sustained failure", |reports| {
        failed_twice(reports)
            && reports.last().is_some_and(|(_, why)| why.starts_with("it is active, and restarted"))
    });
    await_reports(&host, "demo-a", "a unit that stays up passes", passed);
    await_reports(&host, "job", "a job that is done passes", passed);
    await_reports(&host, "never", "a job that never ran fails", failed_twice);
    await_reports(&host, "built-in:units", "nothing is worse off than at the start", passed);

    // A unit that fails now and did not when the watch began.
    host.run(&["systemctl", "stop", "flaps.service"]).expect("it runs");
    host.run(&["systemctl", "kill", "--signal=KILL", "demo-b.service"]).expect("it runs");
    await_reports(&host, "built-in:units", "the new failure is seen", |reports| {
        reports
            .last()
            .is_some_and(|(result, why)| result == "failed" && why.contains("demo-b.service failed"))
    });
}

#[test]
fn a_unit_in_a_restart_loop_is_caught_although_it_is_active_on_trixie() {
    a_restart_loop_is_caught(Flavour::Trixie);
}

#[test]
fn a_unit_in_a_restart_loop_is_caught_although_it_is_active_on_bookworm() {
    a_restart_loop_is_caught(Flavour::Bookworm);
}

/// A child in a session of its own that ignores SIGTERM, and one in the same process group.
fn leaves_children(seconds: u32) -> String {
    format!(
        "setsid sh -c 'trap \"\" TERM; sleep {seconds}; sleep {seconds}' & sleep {seconds} & sleep {seconds}"
    )
}

/// The processes that sleep for so long, and the shells around them.
fn sleepers(host: &Host, seconds: u32) -> Vec<String> {
    let sleeps = format!("sleep {seconds}");
    let all = host.processes().expect("a list").into_iter().map(|(_, line)| line);
    // The agent's own line names the probe, too.
    all.filter(|line| line.contains(&sleeps) && !line.contains("attempt") && !line.contains("--probe"))
        .collect()
}

fn await_sleepers(host: &Host, seconds: u32, what: &str, good: impl Fn(usize) -> bool) {
    let met = host.wait_until(what, LIMIT, |host| good(sleepers(host, seconds).len()));
    assert!(met.is_ok(), "{what}: {:?}", sleepers(host, seconds));
}

fn nothing_of_a_probe_stays(flavour: Flavour) {
    if !hosts_run() {
        return;
    }
    let host = host(flavour);
    // One that is ended at its limit, once, and one that runs while the agent dies.
    let once = probe(
        "late",
        &exec(&format!("[ ! -e /run/once ] || exit 0; touch /run/once; {}", leaves_children(4711))),
        45,
    );
    let long = probe("long", &exec(&leaves_children(4712)), 300);
    // `systemd-run`, by which the agent of this test is started, takes half of the signs away.
    let view = probe("sees", &exec("echo $$$$HOME %i $0; ls -d /home /tmp"), 10);
    start_probes(&host, &[once, long, view]);
    await_sleepers(&host, 4711, "the first probe runs", |found| found >= 3);
    await_reports(&host, "late", "it is too slow", |reports| {
        reports.first().is_some_and(|(result, why)| result == "failed" && why == "no answer within 45 s")
    });
    await_sleepers(&host, 4711, "nothing of it stays", |found| found == 0);
    await_reports(&host, "sees", "it sees the host, and its words are its own", passed);
    // A newer one may have been too slow.
    let mut seen = reports(&host, "sees").into_iter();
    let (_, said) = seen.rfind(|(result, _)| result == "passed").expect("one");
    assert!(said.ends_with("HOME %i /bin/sh | /home | /tmp"), "{said}");

    await_sleepers(&host, 4712, "the long probe runs", |found| found >= 3);
    host.run(&["systemctl", "kill", "--kill-whom=main", "--signal=KILL", UNIT]).expect("it runs");
    await_sleepers(&host, 4712, "nothing of it stays after its agent", |found| found == 0);
    // The unit of a probe ends a moment after all that ran in it.
    let mut left = Vec::new();
    let none = host.wait_until("no unit of a probe stays", LIMIT, |host| {
        left = host.units().expect("listed");
        left.retain(|(name, _)| name.starts_with("run-") && name.ends_with(".service"));
        left.is_empty()
    });
    assert!(none.is_ok(), "{left:?}");
    let journal = host.run(&["journalctl", "--no-pager", "-o", "cat", "-b"]).expect("it runs").stdout;
    assert!(!journal.contains("A probe or hook of nixfleet"), "the journal is not filled by probes");
}

#[test]
fn nothing_of_an_exec_probe_stays_at_its_limit_and_when_the_agent_dies_on_trixie() {
    nothing_of_a_probe_stays(Flavour::Trixie);
}

#[test]
fn nothing_of_an_exec_probe_stays_at_its_limit_and_when_the_agent_dies_on_bookworm() {
    nothing_of_a_probe_stays(Flavour::Bookworm);
}

#[test]
fn a_persons_activation_whose_agent_dies_leaves_no_probe_behind_either() {
    if !hosts_run() {
        return;
    }
    let host = host(Flavour::Trixie);
    // No shell on the command line: a program of the host.
    host.write_file("/run/slow-probe", &format!("#!/bin/sh\n{}\n", leaves_children(4713))).expect("written");
    host.run(&["chmod", "+x", "/run/slow-probe"]).expect("it runs");
    let good = host.system(System::Good).to_owned();
    let agent = host
        .spawn(&[AGENT, "activate", &good, "--probe", "exec:/run/slow-probe", "--confirm-within", "90s"])
        .expect("started");
    await_sleepers(&host, 4713, "the probe runs", |found| found >= 3);
    host.run(&["systemctl", "stop", "nixfleet-agent.service"]).expect("it runs");
    host.sh("pkill -KILL -f 'nixfleet-agent activate'").expect("it runs");
    await_sleepers(&host, 4713, "nothing of it stays", |found| found == 0);
    drop(agent);
}

#[test]
fn a_person_can_ask_all_kinds_of_probes() {
    if !hosts_run() {
        return;
    }
    let host = host(Flavour::Trixie);
    let probes =
        ["http://127.0.0.1:8000/health", "tcp:127.0.0.1:8000", "unit:demo-new.service", "exec:/bin/true"];
    let flags: Vec<&str> = probes.iter().flat_map(|probe| ["--probe", probe]).collect();
    activate(&host, host.system(System::Good), &flags).assert(0, "converged");
    assert_rests_on(&host, System::Good);
}

fn hooks(host: &Host, hooks: &[(&str, u32)]) -> Output {
    let hooks: Vec<Value> = hooks
        .iter()
        .map(|(script, secs)| json!({ "argv": ["/bin/sh", "-c", script], "deadline_secs": secs }))
        .collect();
    host.run_for(LIMIT, &[AGENT, "attempt", "hooks", &Value::from(hooks).to_string()]).expect("it runs")
}

fn hooks_have_a_deadline(flavour: Flavour) {
    if !hosts_run() {
        return;
    }
    let host = host(flavour);
    let ran = hooks(&host, &[("echo one >> /var/hooks", 50), ("echo two >> /var/hooks", 50)]);
    assert_eq!(ran.code, 0, "{ran}");
    let began = Instant::now();
    let slow = format!("echo three >> /var/hooks; {}", leaves_children(4714));
    let late = hooks(&host, &[(&slow, 30), ("echo never >> /var/hooks", 30)]);
    assert_eq!(late.code, 1, "{late}");
    assert!(late.stderr.contains("hook 1 of 2, `/bin/sh`: no answer within 30 s"), "{late}");
    assert!(began.elapsed() < Duration::from_mins(10), "{:?}", began.elapsed());
    assert_eq!(sleepers(&host, 4714), Vec::<String>::new(), "it is over when it is told");
    let ill = hooks(&host, &[("echo cannot drain; kill -TERM $$", 50)]);
    assert!(ill.stderr.contains("exit status 143: cannot drain"), "an end by SIGTERM is no success: {ill}");
    assert_eq!(host.read_file("/var/hooks").expect("written"), "one\ntwo\nthree\n");

    // The agent dies in the middle of a hook.
    let long =
        json!([{ "argv": ["/bin/sh", "-c", leaves_children(4715)], "deadline_secs": 300 }]).to_string();
    let start = ["systemd-run", "--quiet", "--collect", "--unit", UNIT, AGENT, "attempt", "hooks", &long];
    assert_eq!(host.run(&start).expect("it runs").code, 0);
    await_sleepers(&host, 4715, "the hook runs", |found| found >= 3);
    host.run(&["systemctl", "kill", "--kill-whom=main", "--signal=KILL", UNIT]).expect("it runs");
    await_sleepers(&host, 4715, "nothing of it stays", |found| found == 0);
}

#[test]
fn a_hook_is_not_in_the_sandbox_of_its_agent() {
    if !hosts_run() {
        return;
    }
    let host = host(Flavour::Trixie);
    host.write_file("/home/somebody/plan", "drain the north wing\n").expect("written");
    let sandbox = [
        "NoNewPrivileges=yes",
        "ProtectSystem=strict",
        "ProtectHome=yes",
        "PrivateTmp=yes",
        "PrivateDevices=yes",
        "ProtectControlGroups=yes",
        "ProtectKernelTunables=yes",
        "RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK",
        "MemoryDenyWriteExecute=yes",
        "CapabilityBoundingSet=CAP_DAC_OVERRIDE CAP_SYS_ADMIN",
        "UMask=0077",
    ]
    .map(|property| format!("--property={property}"));
    let script =
        "cat /home/somebody/plan > /var/drained && touch /tmp/from-the-hook && ip link set lo mtu 16000";
    let hooks = json!([{ "argv": ["/bin/sh", "-c", script], "deadline_secs": 50 }]).to_string();
    let mut run = vec!["systemd-run", "--quiet", "--wait", "--collect", "--unit", UNIT];
    run.extend(sandbox.iter().map(String::as_str));
    run.extend([AGENT, "attempt", "hooks", &hooks]);
    let ran = host.run(&run).expect("it runs");
    let said = host.journal(UNIT).unwrap_or_default();
    assert_eq!(ran.code, 0, "{ran}{said}");
    assert_eq!(host.read_file("/var/drained").expect("written"), "drain the north wing\n");
    assert!(host.exists("/tmp/from-the-hook"));
    let link = host.run(&["ip", "link", "show", "lo"]).expect("it runs").stdout;
    assert!(link.contains("mtu 16000"), "{link}");
}

#[test]
fn hooks_have_a_deadline_and_do_not_outlive_their_agent_on_trixie() {
    hooks_have_a_deadline(Flavour::Trixie);
}

#[test]
fn hooks_have_a_deadline_and_do_not_outlive_their_agent_on_bookworm() {
    hooks_have_a_deadline(Flavour::Bookworm);
}

/// Starts a program in a unit of its own. One that this test started from outside, and that is still there when the host
/// goes down, would hold that up: `nsenter` stops itself when its child is stopped.
fn in_unit(host: &Host, unit: &str, argv: &[&str]) {
    let start = [&["systemd-run", "--quiet", "--collect", "--unit", unit], argv].concat();
    host.run(&start).expect("it runs").success().expect("started");
}

/// Has the agent restart the host; what it says is in the journal of its unit.
fn order(host: &Host, warn_secs: &str) {
    in_unit(host, UNIT, &[AGENT, "attempt", "reboot", warn_secs]);
}

/// Waits until the agent has given up, and returns what it said.
fn refusal(host: &Host) -> String {
    let over = host.wait_until("the agent is done", LIMIT, |host| {
        host.unit_state(UNIT).is_ok_and(|state| state == "inactive" || state == "failed")
    });
    assert!(over.is_ok());
    host.journal(UNIT).expect("readable")
}

/// Waits for the restart, and tells what stood against it.
fn await_restart(host: &Host) {
    if let Err(error) = host.await_reboot() {
        panic!("{error:#}\n{}", host.journal(UNIT).unwrap_or_default());
    }
}

/// Who holds the lock.
const HOLDER: &str = "holder.service";

fn is_listed(host: &Host) -> bool {
    let listed = host.run(&["systemd-inhibit", "--list"]).expect("it runs").success().expect("a list");
    listed.stdout.contains("half a tape")
}

/// Somebody holds a lock from now on.
fn hold(host: &Host, mode: &str) {
    let mode = format!("--mode={mode}");
    let lock = ["systemd-inhibit", "--what=shutdown", "--who=backup", "--why=half a tape", &mode];
    in_unit(host, HOLDER, &[lock.as_slice(), &["sleep", "600"]].concat());
    assert!(host.wait_until("the lock is held", LIMIT, is_listed).is_ok());
}

/// Nobody does any more.
fn let_go(host: &Host) {
    host.run(&["systemctl", "stop", HOLDER]).expect("it runs").success().expect("stopped");
    assert!(host.wait_until("the lock is free", LIMIT, |host| !is_listed(host)).is_ok());
}

fn a_blocked_restart_is_refused(flavour: Flavour) {
    if !hosts_run() {
        return;
    }
    let host = host(flavour);
    let boots = host.boots();
    hold(&host, "block");
    for warn_secs in ["0", "30"] {
        let refused = host.run(&[AGENT, "attempt", "reboot", warn_secs]).expect("it runs");
        assert_eq!(refused.code, 1, "{refused}");
        assert!(refused.stderr.contains("a restart is blocked by backup (process "), "{refused}");
        assert!(refused.stderr.contains("half a tape"), "{refused}");
    }
    assert_eq!(scheduled(&host), None, "nobody was warned of what does not happen");
    let_go(&host);

    // A delay is waited for by logind, and refuses nothing.
    hold(&host, "delay");
    order(&host, "0");
    await_restart(&host);
    assert_eq!(host.boots(), boots + 1);
}

#[test]
fn a_restart_is_refused_while_somebody_blocks_it_and_happens_otherwise_on_trixie() {
    a_blocked_restart_is_refused(Flavour::Trixie);
}

#[test]
fn a_restart_is_refused_while_somebody_blocks_it_and_happens_otherwise_on_bookworm() {
    a_blocked_restart_is_refused(Flavour::Bookworm);
}

/// What logind has in its book.
fn scheduled(host: &Host) -> Option<String> {
    Some(logind(host, "ScheduledShutdown").trim().to_owned()).filter(|text| text.contains("\"reboot\""))
}

fn await_scheduled(host: &Host) {
    let met = host.wait_until("logind has the restart in its book", LIMIT, |host| scheduled(host).is_some());
    assert!(met.is_ok());
}

/// What logind says of itself.
fn logind(host: &Host, property: &str) -> String {
    let manager = ["org.freedesktop.login1", "/org/freedesktop/login1", "org.freedesktop.login1.Manager"];
    let ask = [&["busctl", "get-property"], manager.as_slice(), &[property]].concat();
    host.run(&ask).expect("it runs").success().expect("an answer").stdout
}

/// What people are told.
const MESSAGE: &str = "nixfleet: this host restarts for an update.";

/// Who is logged in.
const PERSON: &str = "person.service";
/// What they see.
const TERMINAL: &str = "/run/terminal";

/// Logs somebody in where that is possible.
///
/// Debian 13 has no list of users without the PAM module of logind, which these hosts have not: there nobody is found.
fn log_in(host: &Host, flavour: Flavour) {
    match flavour {
        Flavour::Bookworm => {}
        Flavour::Trixie => return,
    }
    let login = format!("sleep 600 | script -q -f -c 'login -f root' {TERMINAL}");
    in_unit(host, PERSON, &["--property=KillSignal=SIGKILL", "/bin/sh", "-c", &login]);
    let there = host.wait_until("somebody is logged in", LIMIT, |host| {
        host.run(&["who"]).is_ok_and(|output| output.stdout.contains("root"))
    });
    assert!(there.is_ok());
}

/// logind has been told what to tell people, and has told the one who is there.
fn assert_warned(host: &Host, flavour: Flavour) {
    assert!(logind(host, "WallMessage").contains(MESSAGE));
    assert_eq!(logind(host, "EnableWallMessages").trim(), "b true");
    match flavour {
        Flavour::Bookworm => {}
        Flavour::Trixie => return,
    }
    let warned = host.wait_until("the person is warned", LIMIT, |host| {
        host.read_file(TERMINAL).is_ok_and(|seen| seen.contains(MESSAGE))
    });
    assert!(warned.is_ok(), "{:?}", host.read_file(TERMINAL));
    host.run(&["systemctl", "stop", PERSON]).expect("it runs").success().expect("logged out");
}

fn a_restart_warns_people(flavour: Flavour) {
    if !hosts_run() {
        return;
    }
    let host = host(flavour);
    log_in(&host, flavour);

    // A lock that is taken while people are being warned takes the restart back.
    order(&host, "90");
    await_scheduled(&host);
    assert_warned(&host, flavour);
    hold(&host, "block");
    let refused = refusal(&host);
    assert!(refused.contains("half a tape"), "{refused}");
    assert_eq!(scheduled(&host), None, "it is taken back");
    let_go(&host);

    // A person who cancels it is obeyed.
    order(&host, "40");
    await_scheduled(&host);
    host.run(&["shutdown", "-c"]).expect("it runs").success().expect("cancelled");
    let cancelled = refusal(&host);
    assert!(cancelled.contains("somebody cancelled the restart"), "{cancelled}");

    // The agent dies, and the restart that people were warned of happens all the same.
    let boots = host.boots();
    order(&host, "45");
    await_scheduled(&host);
    host.run(&["systemctl", "kill", "--signal=KILL", UNIT]).expect("it runs").success().expect("killed");
    await_restart(&host);
    assert_eq!(host.boots(), boots + 1);
}

#[test]
fn people_are_warned_and_may_cancel_and_so_may_a_lock_on_trixie() {
    a_restart_warns_people(Flavour::Trixie);
}

#[test]
fn people_are_warned_and_may_cancel_and_so_may_a_lock_on_bookworm() {
    a_restart_warns_people(Flavour::Bookworm);
}

#[test]
fn what_only_a_reboot_brings_is_told_until_it_is_rebooted() {
    if !hosts_run() {
        return;
    }
    let host = host(Flavour::Trixie);
    let needed =
        || host.run(&[AGENT, "attempt", "reboot-needed"]).expect("it runs").success().expect("told").stdout;
    assert_eq!(needed(), "");
    let target = host.system(System::OtherKernel).to_owned();
    let activated = activate(&host, &target, &["--closure-inhibitors-only"]);
    activated.assert(0, "converged");
    let told = activated.json["reboot_needed"].as_array().expect("the outcome has it");
    let told: Vec<&str> = told.iter().filter_map(|part| part["key"].as_str()).collect();
    let said = needed();
    let parts: Vec<&str> =
        said.lines().filter_map(|line| line.split_once(':')).map(|(part, _)| part).collect();
    for part in ["kernel", "initrd", "kernel-modules"] {
        assert!(parts.contains(&part), "{part}: {said}");
        assert!(told.contains(&part), "{part}: {}", activated.json);
    }
    order(&host, "0");
    await_restart(&host);
    assert_eq!(needed(), "");
}
