//! `systemctl show` of what a probe wants to know of a unit: whether it is well, and whether it is the same run.

use nixfleet_sys::exec::Cmd;

use super::nix_store::understood;
use super::systemd::systemctl;
use super::units::{ActiveState, MainEnd, Properties, UnitName, main_end};
use super::{NotUnderstood, ToolError, Tools};

/// A unit at this moment. One that is not loaded reads as inactive, which no probe takes for well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnitNow {
    /// `loaded`, `not-found`, `masked`, `error` and the like.
    pub load: String,
    /// Whether it runs.
    pub active: ActiveState,
    /// The state in the words of its type, such as `auto-restart`.
    pub sub: String,
    /// How its last run ended or goes on, `success`, `exit-code`, `start-limit-hit` and the like; empty for types that
    /// have none.
    pub result: String,
    /// Whether it is a service that does its work and ends.
    pub work: Work,
    /// How its main process ended; none while it runs, or if it never did.
    pub main_end: Option<MainEnd>,
    /// How often systemd has restarted it by itself, since somebody else last did.
    pub restarts: u32,
    /// Names this one run of it.
    pub invocation: Option<String>,
}

/// What kind of work a unit does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Work {
    /// It does its work and ends: `Type=oneshot`.
    Ends,
    /// It stays.
    Stays,
}

const SHOWN: &str =
    "LoadState,ActiveState,SubState,Result,Type,ExecMainCode,ExecMainStatus,NRestarts,InvocationID";

/// `systemctl show` of what [`parse`] wants.
pub fn now(tools: &Tools, unit: &UnitName) -> Cmd {
    systemctl(tools, &["show", "--property", SHOWN, "--", unit.as_str()])
}

/// The unit in what `systemctl show` printed.
pub fn parse(stdout: &str) -> Result<UnitNow, NotUnderstood> {
    let shown = Properties::read(stdout)?;
    let work = if shown.get("Type") == Some("oneshot") { Work::Ends } else { Work::Stays };
    Ok(UnitNow {
        load: shown.must("LoadState")?.to_owned(),
        active: ActiveState::read(shown.must("ActiveState")?),
        sub: shown.must("SubState")?.to_owned(),
        result: shown.get("Result").unwrap_or_default().to_owned(),
        work,
        main_end: main_end(&shown)?,
        restarts: shown.number("NRestarts")?.unwrap_or(0),
        invocation: shown.get("InvocationID").filter(|id| !id.is_empty()).map(str::to_owned),
    })
}

impl Tools {
    /// What systemd says of the unit now.
    pub async fn unit_now(&self, unit: &UnitName) -> Result<UnitNow, ToolError> {
        understood(now(self, unit), parse).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tools::tests::{SYSTEMD, recorded, replay, tools};
    use proptest::prelude::*;

    fn shown(name: &str) -> UnitNow {
        parse(&recorded(name, "stdout")).expect("recorded from a real systemd")
    }

    #[test]
    fn the_question_names_what_is_read() {
        let unit = "web.service".parse().expect("a name");
        let line = now(&tools(), &unit).line();
        assert!(line.starts_with("/tools/systemctl --no-pager --no-ask-password show --property LoadState,"));
        assert!(line.ends_with(",InvocationID -- web.service"), "{line}");
    }

    #[test]
    fn what_both_versions_of_systemd_say_is_understood() {
        for version in SYSTEMD {
            let unit = |case: &str| shown(&format!("systemctl-{version}-now-{case}"));
            let up = unit("up");
            assert_eq!((up.active, up.work, up.restarts), (ActiveState::Active, Work::Stays, 0));
            assert!(up.invocation.is_some());
            let looping = unit("loop");
            assert!(looping.restarts > 0, "{looping:?}");
            assert!(looping.sub.starts_with("auto-restart"), "{looping:?}");
            let done = unit("oneshot-done");
            assert_eq!((done.active, done.work), (ActiveState::Inactive, Work::Ends));
            assert_eq!((done.main_end, done.result.as_str()), (Some(MainEnd::Exited(0)), "success"));
            let never = unit("oneshot-never");
            assert_eq!((never.active, never.work, never.main_end), (ActiveState::Inactive, Work::Ends, None));
            let failed = unit("oneshot-failed");
            assert_eq!((failed.active, failed.main_end), (ActiveState::Failed, Some(MainEnd::Exited(4))));
            let missing = unit("missing");
            assert_eq!((missing.load.as_str(), missing.active), ("not-found", ActiveState::Inactive));
            let socket = unit("socket");
            assert_eq!((socket.active, socket.work), (ActiveState::Active, Work::Stays));
        }
    }

    proptest! {
        #[test]
        fn no_text_stops_the_reader(text in any::<String>(), lines in "([A-Za-z]{1,12}=[a-z0-9]{0,6}\n){0,8}") {
            drop(parse(&text));
            drop(parse(&lines));
        }
    }

    #[test]
    fn the_corpus_is_read_without_a_panic() {
        replay("systemctl-show", |bytes| drop(parse(&String::from_utf8_lossy(bytes))));
    }
}
