//! How a detached run ended, as the record says that its own unit wrote (`facts/switch.md` 6).

use std::fmt;

use serde::{Deserialize, Serialize};

/// How a run ended. There is no default: an end that nobody recorded is [`RunEnd::Unknown`], never a success.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "how", rename_all = "kebab-case")]
pub enum RunEnd {
    /// It exited by itself.
    Exited {
        /// With this code.
        code: i32,
    },
    /// It was killed by somebody else.
    Killed {
        /// With this signal number; 0 when the record does not name one that we know.
        signal: i32,
    },
    /// It reached its limit and its whole cgroup was ended.
    TimedOut,
    /// The unit is gone and left no record.
    Unknown,
}

impl fmt::Display for RunEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exited { code } => write!(f, "exit code {code}"),
            Self::Killed { signal } => write!(f, "killed by signal {signal}"),
            Self::TimedOut => f.write_str("ended at its time limit"),
            Self::Unknown => f.write_str("no record of its end"),
        }
    }
}

impl RunEnd {
    /// From systemd's `$SERVICE_RESULT`, `$EXIT_CODE` and `$EXIT_STATUS`, as `ExecStopPost` gets them.
    ///
    /// What cannot be read is [`RunEnd::Unknown`] (lesson 5).
    pub fn from_systemd(service_result: &str, exit_code: &str, exit_status: &str) -> Self {
        match (service_result, exit_code) {
            ("timeout" | "watchdog", _) => Self::TimedOut,
            (_, "exited") => exit_status.parse().map_or(Self::Unknown, |code| Self::Exited { code }),
            (_, "killed" | "dumped") => Self::Killed { signal: signal_number(exit_status) },
            (_, _) => Self::Unknown,
        }
    }
}

/// systemd names signals without `SIG`, or gives a number.
fn signal_number(name: &str) -> i32 {
    match name {
        "HUP" => 1,
        "INT" => 2,
        "QUIT" => 3,
        "ILL" => 4,
        "ABRT" => 6,
        "BUS" => 7,
        "FPE" => 8,
        "KILL" => 9,
        "SEGV" => 11,
        "PIPE" => 13,
        "ALRM" => 14,
        "TERM" => 15,
        other => other.parse().unwrap_or(0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_record_seen_on_systemd_is_understood() {
        // The third column of the table in facts/switch.md 6.
        for (record, want) in [
            (["success", "exited", "0"], RunEnd::Exited { code: 0 }),
            (["exit-code", "exited", "4"], RunEnd::Exited { code: 4 }),
            (["exit-code", "exited", "11"], RunEnd::Exited { code: 11 }),
            (["signal", "killed", "KILL"], RunEnd::Killed { signal: 9 }),
            (["signal", "killed", "TERM"], RunEnd::Killed { signal: 15 }),
            (["core-dump", "dumped", "SEGV"], RunEnd::Killed { signal: 11 }),
            (["timeout", "killed", "TERM"], RunEnd::TimedOut),
            (["timeout", "killed", "KILL"], RunEnd::TimedOut),
        ] {
            assert_eq!(RunEnd::from_systemd(record[0], record[1], record[2]), want, "{record:?}");
        }
    }

    #[test]
    fn a_record_that_cannot_be_read_is_not_a_success() {
        for record in
            [["", "", ""], ["success", "", ""], ["success", "exited", ""], ["success", "exited", "0x"]]
        {
            assert_eq!(RunEnd::from_systemd(record[0], record[1], record[2]), RunEnd::Unknown, "{record:?}");
        }
    }
}
