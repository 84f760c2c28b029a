use super::*;
use proptest::prelude::*;

fn up(restarts: u32, run: &str) -> UnitNow {
    UnitNow {
        load: "loaded".to_owned(),
        active: ActiveState::Active,
        sub: "running".to_owned(),
        result: "success".to_owned(),
        work: Work::Stays,
        main_end: None,
        restarts,
        invocation: Some(run.to_owned()),
    }
}

fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

proptest! {
    #[test]
    fn a_unit_that_stays_up_passes_however_often_it_restarted_before(
        before in 0u32..1000, gaps in proptest::collection::vec(0u64..10_000, 1..30),
    ) {
        let mut memory = Restarts::default();
        let mut now = 0;
        for gap in gaps {
            now += gap;
            prop_assert!(memory.judge(&up(before, "a"), secs(now)).is_ok());
        }
    }

    #[test]
    fn a_loop_fails_at_every_look_from_its_second_restart_however_it_and_the_looks_are_spaced(
        every in 1u64..240, look_every in 1u64..120, by_systemd: bool,
    ) {
        // It restarts at `every`, twice that and so on, and is active whenever it is looked at.
        let mut memory = Restarts::default();
        let mut looks = 0;
        for now in (0..3000).step_by(usize::try_from(look_every).expect("small")) {
            let restarts = now / every;
            let count = if by_systemd { u32::try_from(restarts).expect("small") } else { 0 };
            let said = memory.judge(&up(count, &restarts.to_string()), secs(now));
            // Seen by then: two looks that showed another run than the look before.
            if now >= 2 * every + 2 * look_every {
                prop_assert!(said.is_err(), "at {now}");
                looks += 1;
            }
        }
        prop_assert!(looks > 10);
    }

    #[test]
    fn a_single_restart_fails_once_and_no_more(at in 1u64..100, looks in 2u64..50) {
        let mut memory = Restarts::default();
        let mut failed = 0;
        for now in 0..at + looks {
            let restarts = u32::from(now >= at);
            failed += u32::from(memory.judge(&up(restarts, &restarts.to_string()), secs(now)).is_err());
        }
        prop_assert_eq!(failed, 1);
    }
}

#[test]
fn a_loop_that_has_ended_is_forgiven_when_its_time_is_over() {
    let mut memory = Restarts::default();
    assert!(memory.judge(&up(0, "a"), secs(0)).is_ok());
    assert!(memory.judge(&up(5, "b"), secs(10)).is_err());
    let said = memory.judge(&up(5, "b"), secs(600)).expect_err("it is not over");
    assert_eq!(said, "it is active, and restarted 5 times in 600 s");
    assert!(memory.judge(&up(5, "b"), secs(611)).is_ok());
}

#[test]
fn a_unit_that_waits_for_its_restart_has_no_run_and_the_restart_is_seen_all_the_same() {
    let mut memory = Restarts::default();
    assert!(memory.judge(&up(0, "a"), secs(0)).is_ok());
    let waits = UnitNow {
        active: ActiveState::Activating,
        sub: "auto-restart".to_owned(),
        result: "exit-code".to_owned(),
        invocation: None,
        ..up(0, "a")
    };
    assert_eq!(memory.judge(&waits, secs(1)), Err("it is activating (auto-restart): exit-code".to_owned()));
    assert!(memory.judge(&up(0, "b"), secs(2)).is_err());
    assert!(memory.judge(&up(0, "b"), secs(3)).is_ok());
}

fn oneshot(active: ActiveState, result: &str, main_end: Option<MainEnd>) -> UnitNow {
    UnitNow {
        active,
        sub: "dead".to_owned(),
        result: result.to_owned(),
        work: Work::Ends,
        main_end,
        ..up(0, "a")
    }
}

#[test]
fn a_unit_that_ends_counts_by_its_last_run_and_must_have_run() {
    let said = |unit: &UnitNow| Restarts::default().judge(unit, secs(0));
    let (well, ill) = (Some(MainEnd::Exited(0)), Some(MainEnd::Exited(4)));
    assert!(said(&oneshot(ActiveState::Inactive, "success", well)).is_ok());
    assert!(said(&oneshot(ActiveState::Active, "success", well)).is_ok(), "RemainAfterExit=");
    assert_eq!(said(&oneshot(ActiveState::Inactive, "success", None)), Err("it has not run".to_owned()));
    assert!(said(&oneshot(ActiveState::Inactive, "success", Some(MainEnd::Killed(15)))).is_err());
    assert_eq!(
        said(&oneshot(ActiveState::Failed, "exit-code", ill)),
        Err("it is failed (dead): exit-code".to_owned())
    );
    assert!(said(&oneshot(ActiveState::Activating, "success", None)).is_err(), "it is not done yet");
}

#[test]
fn the_runs_of_a_unit_that_ends_are_no_restarts() {
    let mut memory = Restarts::default();
    for now in 0..50 {
        let run = UnitNow {
            invocation: Some(now.to_string()),
            ..oneshot(ActiveState::Inactive, "success", Some(MainEnd::Exited(0)))
        };
        assert!(memory.judge(&run, secs(now)).is_ok());
    }
}

#[test]
fn a_daemon_that_is_down_and_a_unit_that_is_not_there_fail() {
    let said = |unit: &UnitNow| Restarts::default().judge(unit, secs(0));
    let down = UnitNow { active: ActiveState::Inactive, sub: "dead".to_owned(), ..up(0, "a") };
    assert_eq!(said(&down), Err("it is inactive (dead)".to_owned()));
    assert_eq!(
        said(&UnitNow { load: "not-found".to_owned(), ..down.clone() }),
        Err("it is not-found".to_owned())
    );
    assert_eq!(said(&UnitNow { load: "masked".to_owned(), ..down }), Err("it is masked".to_owned()));
}
