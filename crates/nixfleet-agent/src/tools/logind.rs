//! `busctl` to logind: who holds a restart up, and a restart that warns people first.
//!
//! `busctl --json` is used because `systemd-inhibit --list` prints a table only, in which a name may hold anything.
//! Seen on real hosts: logind of systemd 257 refuses a restart to root while somebody blocks it ("Access denied"), that
//! of 252 does not, so the locks are looked at here; and a scheduled restart is cancelled by anybody's `shutdown -c`.

use serde::Deserialize;

use nixfleet_sys::exec::Cmd;

use super::nix_store::understood;
use super::systemd::done;
use super::{NotUnderstood, ToolError, Tools};

const MANAGER: [&str; 3] =
    ["org.freedesktop.login1", "/org/freedesktop/login1", "org.freedesktop.login1.Manager"];
/// logind answers within milliseconds.
const ASK_DEADLINE: std::time::Duration = std::time::Duration::from_secs(30);
/// What is restarted, in logind's word.
const REBOOT: &str = "reboot";

/// A lock that somebody holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lock {
    /// What it is against: `shutdown`, `sleep`, `idle` and others.
    pub what: Vec<String>,
    /// Who holds it, in their own words.
    pub who: String,
    /// Why, in their own words.
    pub why: String,
    /// How much it is against it.
    pub mode: LockMode,
    /// The process that holds it.
    pub pid: u32,
}

/// How much a lock is against something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LockMode {
    /// It must not happen.
    Block,
    /// It waits for some seconds.
    Delay,
    /// It must not happen at a user's word; root's counts more.
    BlockWeak,
    /// A word that this agent does not know.
    Other(String),
}

impl Lock {
    /// Whether a restart must not happen while this is held. A mode that is not known is taken for the strongest.
    pub fn forbids_restart(&self) -> bool {
        let strong = match self.mode {
            LockMode::Block | LockMode::Other(_) => true,
            LockMode::Delay | LockMode::BlockWeak => false,
        };
        strong && self.what.iter().any(|what| what == "shutdown")
    }
}

/// A restart that logind has in its book.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheduled {
    /// At this time, microseconds since 1970.
    At(u64),
    /// None, or it was cancelled, or something else than a restart.
    Not,
}

/// `busctl call` of a method of logind.
fn call(tools: &Tools, method: &str, args: &[&str]) -> Cmd {
    let head = ["--json=short", "--no-pager", "call"];
    tools.command(&tools.busctl).args(head).args(MANAGER).arg(method).args(args).deadline(ASK_DEADLINE)
}

/// Lists the locks.
pub fn list_locks(tools: &Tools) -> Cmd {
    call(tools, "ListInhibitors", &[])
}

/// Sets what people who are logged in are told.
pub fn set_message(tools: &Tools, message: &str) -> Cmd {
    call(tools, "SetWallMessage", &["sb", message, "true"])
}

/// Has logind restart the host at `at_us`, microseconds since 1970; it tells people now and again before that.
pub fn schedule(tools: &Tools, at_us: u64) -> Cmd {
    call(tools, "ScheduleShutdown", &["st", REBOOT, &at_us.to_string()])
}

/// Cancels what is scheduled; nothing is nothing.
pub fn cancel(tools: &Tools) -> Cmd {
    call(tools, "CancelScheduledShutdown", &[])
}

/// Asks what is scheduled.
pub fn scheduled(tools: &Tools) -> Cmd {
    let head = ["--json=short", "--no-pager", "get-property"];
    tools.command(&tools.busctl).args(head).args(MANAGER).arg("ScheduledShutdown").deadline(ASK_DEADLINE)
}

#[derive(Deserialize)]
struct Reply<T> {
    #[serde(rename = "type")]
    signature: String,
    data: T,
}

fn reply<T: serde::de::DeserializeOwned>(stdout: &str, signature: &str) -> Result<T, NotUnderstood> {
    let reply: Reply<T> = serde_json::from_str(stdout)
        .map_err(|error| NotUnderstood::new("logind's answer has another form", &error.to_string()))?;
    if reply.signature == signature {
        Ok(reply.data)
    } else {
        Err(NotUnderstood::new("logind's answer has another type", &reply.signature))
    }
}

/// The locks in what [`list_locks`] printed.
pub fn parse_locks(stdout: &str) -> Result<Vec<Lock>, NotUnderstood> {
    type Row = (String, String, String, String, u32, u32);
    let (rows,): (Vec<Row>,) = reply(stdout, "a(ssssuu)")?;
    let lock = |(what, who, why, mode, _uid, pid): Row| Lock {
        what: what.split(':').map(str::to_owned).collect(),
        who,
        why,
        mode: match mode.as_str() {
            "block" => LockMode::Block,
            "delay" => LockMode::Delay,
            "block-weak" => LockMode::BlockWeak,
            _ => LockMode::Other(mode),
        },
        pid,
    };
    Ok(rows.into_iter().map(lock).collect())
}

/// The restart in what [`scheduled`] printed.
pub fn parse_scheduled(stdout: &str) -> Result<Scheduled, NotUnderstood> {
    let (kind, at_us): (String, u64) = reply(stdout, "(st)")?;
    Ok(if kind == REBOOT { Scheduled::At(at_us) } else { Scheduled::Not })
}

impl Tools {
    /// The locks that are held now.
    pub async fn locks(&self) -> Result<Vec<Lock>, ToolError> {
        understood(list_locks(self), parse_locks).await
    }

    /// Schedules a restart at `at_us`, microseconds since 1970, of which people who are logged in are told `message`.
    pub async fn schedule_restart(&self, at_us: u64, message: &str) -> Result<(), ToolError> {
        done(set_message(self, message)).await?;
        done(schedule(self, at_us)).await
    }

    /// Cancels a restart that is scheduled; that there is none is fine.
    pub async fn cancel_restart(&self) -> Result<(), ToolError> {
        done(cancel(self)).await
    }

    /// The restart that is scheduled.
    pub async fn scheduled_restart(&self) -> Result<Scheduled, ToolError> {
        understood(scheduled(self), parse_scheduled).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tools::tests::{SYSTEMD, recorded, recorded_exit, replay, tools};
    use proptest::prelude::*;

    #[test]
    fn commands_are_argument_vectors_whatever_the_message_holds() {
        let cmd = set_message(&tools(), "-- \"soon\"; $HOME");
        assert_eq!(
            cmd.arguments()[3..],
            [
                "org.freedesktop.login1",
                "/org/freedesktop/login1",
                "org.freedesktop.login1.Manager",
                "SetWallMessage",
                "sb",
                "-- \"soon\"; $HOME",
                "true"
            ]
        );
        assert!(schedule(&tools(), 1_795_621_829_000_000).line().ends_with("st reboot 1795621829000000"));
    }

    #[test]
    fn locks_of_both_versions_are_read_and_only_those_that_block_a_restart_forbid_it() {
        for version in SYSTEMD {
            let none = recorded(&format!("busctl-{version}-locks-none"), "stdout");
            assert_eq!(parse_locks(&none).expect("recorded"), []);
            let some = recorded(&format!("busctl-{version}-locks"), "stdout");
            let locks = parse_locks(&some).expect("recorded");
            let forbids: Vec<_> = locks.iter().filter(|lock| lock.forbids_restart()).collect();
            assert_eq!(forbids.len(), 1, "{version}: {locks:?}");
            assert_eq!(
                (forbids[0].who.as_str(), forbids[0].why.as_str()),
                ("a \"person\" ü", "backing; up $HOME")
            );
            let delay = locks.iter().find(|lock| lock.mode == LockMode::Delay).expect("recorded");
            assert_eq!(delay.what, ["shutdown", "sleep"]);
        }
    }

    #[test]
    fn a_mode_that_is_not_known_forbids() {
        let lock = |mode: &str| {
            let text =
                format!(r#"{{"type":"a(ssssuu)","data":[[["sleep:shutdown","a","b","{mode}",0,1]]]}}"#);
            parse_locks(&text).expect("well-formed").remove(0)
        };
        assert!(lock("block").forbids_restart() && lock("block-strong").forbids_restart());
        assert!(!lock("delay").forbids_restart() && !lock("block-weak").forbids_restart());
    }

    #[test]
    fn what_is_scheduled_is_read_and_so_is_that_nothing_is() {
        for version in SYSTEMD {
            let read = |case: &str| {
                parse_scheduled(&recorded(&format!("busctl-{version}-{case}"), "stdout")).expect("recorded")
            };
            assert!(matches!(read("scheduled"), Scheduled::At(us) if us > 1_700_000_000_000_000));
            assert_eq!(read("scheduled-none"), Scheduled::Not);
        }
        // The strictness of 257 and the lack of it in 252 are why the locks are looked at.
        assert_eq!(recorded_exit("busctl-257-schedule-blocked"), 1);
        assert_eq!(recorded_exit("busctl-252-schedule-blocked"), 0);
    }

    proptest! {
        #[test]
        fn no_text_stops_the_readers(text in any::<String>()) {
            drop(parse_locks(&text));
            drop(parse_scheduled(&text));
        }

        #[test]
        fn every_lock_that_is_written_is_read(who in any::<String>(), why in any::<String>(), pid: u32) {
            let row = serde_json::json!(["shutdown", who, why, "block", 0, pid]);
            let text = serde_json::json!({"type": "a(ssssuu)", "data": [[row]]}).to_string();
            let locks = parse_locks(&text).expect("well-formed");
            prop_assert_eq!((&locks[0].who, &locks[0].why, locks[0].pid), (&who, &why, pid));
        }
    }

    #[test]
    fn the_corpus_is_read_without_a_panic() {
        replay("logind", |bytes| {
            let text = String::from_utf8_lossy(bytes);
            drop(parse_locks(&text));
            drop(parse_scheduled(&text));
        });
    }
}
