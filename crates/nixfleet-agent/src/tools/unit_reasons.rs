//! `systemctl show` and `systemctl start`, for a unit that was up before a switch and is down after it.

use std::time::Duration;

use nixfleet_sys::exec::{Cmd, Finished};

use super::units::UnitName;
use super::{ToolError, Tools};

/// A start may take its own `TimeoutStartSec=`, 90 s by default.
const START_DEADLINE: Duration = Duration::from_mins(2);

/// Why a unit may rightly be down.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnitReasons {
    /// The file that defines it; empty for a unit without one.
    pub fragment: String,
    /// Whether a timer, a path or a socket starts it when there is work.
    pub triggered: bool,
    /// Whether its last run ended well.
    pub ended_well: bool,
}

/// `systemctl show` of what [`parse`] wants.
pub fn reasons(tools: &Tools, unit: &UnitName) -> Cmd {
    let shown = "LoadState,FragmentPath,TriggeredBy,Result";
    tools.command(&tools.systemctl).args(["--no-pager", "show", "--property", shown, "--", unit.as_str()])
}

/// `systemctl start`: waits for the end of the start job.
pub fn start(tools: &Tools, unit: &UnitName) -> Cmd {
    let args = ["--no-pager", "--no-ask-password", "start", "--", unit.as_str()];
    tools.command(&tools.systemctl).args(args).deadline(START_DEADLINE)
}

/// The reasons in what `systemctl show` printed; `None` for a unit that systemd does not know any more.
pub fn parse(stdout: &str) -> Option<UnitReasons> {
    let value = |key: &str| stdout.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
    match value("LoadState") {
        None | Some("not-found" | "") => None,
        Some(_) => Some(UnitReasons {
            fragment: value("FragmentPath").unwrap_or_default().to_owned(),
            triggered: value("TriggeredBy").is_some_and(|units| !units.is_empty()),
            ended_well: value("Result").is_none_or(|result| result == "success"),
        }),
    }
}

impl Tools {
    /// Why the unit may rightly be down; `None` when the system does not have it any more.
    pub async fn unit_reasons(&self, unit: &UnitName) -> Result<Option<UnitReasons>, ToolError> {
        let finished =
            reasons(self, unit).run().await.and_then(Finished::success).map_err(ToolError::Exec)?;
        Ok(parse(&finished.stdout_text()))
    }

    /// Starts the unit and waits for the end of its start job.
    pub async fn start_unit(&self, unit: &UnitName) -> Result<(), ToolError> {
        start(self, unit).run().await.and_then(Finished::success).map_err(ToolError::Exec)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_unit_that_the_system_does_not_have_has_no_reasons() {
        assert_eq!(parse("Result=success\nLoadState=not-found\nFragmentPath=\nTriggeredBy=\n"), None);
        assert_eq!(parse(""), None);
    }

    #[test]
    fn a_job_of_a_timer_that_ended_well_is_told_from_a_daemon() {
        let job = "Result=success\nLoadState=loaded\nFragmentPath=/etc/systemd/system/a.service\nTriggeredBy=a.timer\n";
        let reasons = parse(job).expect("loaded");
        assert!(reasons.triggered && reasons.ended_well);
        let daemon =
            "Result=exit-code\nLoadState=loaded\nFragmentPath=/etc/systemd/system/b.service\nTriggeredBy=\n";
        let reasons = parse(daemon).expect("loaded");
        assert!(!reasons.triggered && !reasons.ended_well);
    }
}
