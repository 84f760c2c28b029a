use super::*;
use crate::tools::tests::{SYSTEMD, recorded, recorded_exit, replay};
use proptest::prelude::*;

fn shown(version: &str, case: &str) -> UnitShown {
    let name = format!("systemctl-{version}-show-{case}");
    assert_eq!(recorded_exit(&name), 0, "{name}");
    parse_show(&recorded(&name, "stdout")).expect(&name)
}

fn loaded(version: &str, case: &str) -> UnitStatus {
    match shown(version, case) {
        UnitShown::Loaded(status) => status,
        UnitShown::NotLoaded => panic!("{version} {case} is not loaded"),
    }
}

#[test]
fn a_unit_that_is_gone_is_never_a_success() {
    for version in SYSTEMD {
        for case in ["never", "ended-well", "collected", "after-missing", "after-reset", "timer-after"] {
            assert_eq!(shown(version, case), UnitShown::NotLoaded, "{version} {case}");
        }
    }
}

#[test]
fn ends_are_told_apart() {
    for version in SYSTEMD {
        let end = |case| {
            let status = loaded(version, case);
            (status.active, status.result, status.main_end)
        };
        let failed = |result: &str, how| (ActiveState::Failed, result.to_owned(), Some(how));
        assert_eq!(end("exit-4"), failed("exit-code", MainEnd::Exited(4)));
        assert_eq!(end("killed"), failed("signal", MainEnd::Killed(9)));
        assert_eq!(end("limit"), failed("timeout", MainEnd::Killed(15)));
        let runs = loaded(version, "runs");
        assert_eq!((runs.active, runs.main_end), (ActiveState::Active, None), "ExecMainStatus=0 is no end");
        assert!(runs.main_pid.is_some() && runs.invocation.is_some_and(|id| id.len() == 32));
    }
}

#[test]
fn odd_loads_are_loaded() {
    for version in SYSTEMD {
        assert_eq!(loaded(version, "masked").load, "masked");
        assert!(loaded(version, "needs-reload").needs_daemon_reload);
        let orphan = loaded(version, "gone-but-active");
        assert_eq!((orphan.load.as_str(), orphan.active), ("not-found", ActiveState::Active));
        assert_eq!(loaded(version, "multi").result, "", "a target has no result");
        assert_eq!(loaded(version, "socket").sub, "running");
        assert_eq!(loaded(version, "timer-armed").sub, "waiting");
    }
}

#[test]
fn what_is_no_answer_is_refused() {
    for bad in [
        "",
        "LoadState=loaded",
        "ActiveState=active",
        "no equals sign",
        "LoadState=loaded\nActiveState=active",
    ] {
        assert!(parse_show(bad).is_err(), "{bad}");
    }
    let whole = "LoadState=loaded\nActiveState=active\nSubState=x\n";
    assert!(parse_show(whole).is_ok());
    assert!(parse_show(&format!("{whole}ExecMainCode=7\nExecMainStatus=1")).is_err());
    assert!(parse_show(&format!("{whole}NRestarts=many")).is_err());
}

#[test]
fn lists_are_read_from_both_versions() {
    for version in SYSTEMD {
        let all = parse_list_units(recorded(&format!("systemctl-{version}-list-units"), "stdout").as_bytes())
            .expect("a list");
        assert!(all.len() > 100, "{}", all.len());
        assert!(all.iter().any(|unit| unit.name.as_str() == "-.mount" && unit.active == ActiveState::Active));
        let failed = parse_list_units(recorded(&format!("systemctl-{version}-failed"), "stdout").as_bytes())
            .expect("a list");
        let names: Vec<_> = failed.iter().map(|unit| unit.name.as_str()).collect();
        assert_eq!(names, ["n-four.service", "n-limit.service", "n-runs.service"]);
        assert!(failed.iter().all(|unit| unit.active == ActiveState::Failed));
    }
    assert!(parse_list_units(b"[]").expect("nothing has failed").is_empty());
    assert!(parse_list_units(b"").is_err());
}

#[test]
fn the_state_of_the_system_is_a_word() {
    for version in SYSTEMD {
        let word = |case| parse_system_state(&recorded(&format!("systemctl-{version}-{case}"), "stdout"));
        assert_eq!(word("running"), Ok(SystemState::Running));
        assert_eq!(word("degraded"), Ok(SystemState::Degraded));
        assert!(
            parse_userspace_start(&recorded(&format!("systemctl-{version}-userspace"), "stdout"))
                .is_ok_and(|us| us > 0)
        );
    }
    assert!(parse_system_state("").is_err());
    assert!(parse_userspace_start("").is_err());
}

#[test]
fn a_unit_name_is_whole_and_no_option() {
    for good in ["sshd.service", "-.mount", "dev-sda1.device", "getty@tty1.service", "a\\x2db.service"] {
        assert_eq!(good.parse::<UnitName>().expect(good).as_str(), good);
    }
    for bad in [
        "",
        "sshd",
        ".service",
        "--all.service",
        "a b.service",
        "*.service",
        "../x.service",
        "x.nothing",
        "a\n.service",
    ] {
        assert!(bad.parse::<UnitName>().is_err(), "{bad}");
    }
}

#[test]
fn the_corpora_are_read_to_their_ends() {
    replay("systemctl-show", |bytes| drop(parse_show(&String::from_utf8_lossy(bytes))));
    replay("list-units", |bytes| drop(parse_list_units(bytes)));
}

proptest! {
    #[test]
    fn no_text_is_too_strange(text in any::<String>()) {
        let _ = (parse_show(&text), parse_list_units(text.as_bytes()), parse_system_state(&text));
        let _ = (parse_userspace_start(&text), text.parse::<UnitName>());
        let _ = parse_show(&format!("LoadState={text}\nActiveState={text}\nSubState={text}\nExecMainCode={text}"));
    }
}
