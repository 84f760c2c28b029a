//! Why a verb did not do what it was asked for: words for a person on stderr and, with `--json`, one object on stdout.
//!
//! Verbs return a [`Refusal`], and [`crate::cli::main`] shows it: no verb can forget the half that a script reads. An
//! activation that was refused is an outcome, with the same [`Problem`] in it.

use std::borrow::Cow;
use std::process::ExitCode;

use nixfleet_agent::activation::journal::JournalError;
use nixfleet_agent::activation::rollback::NoWayBack;
use nixfleet_agent::activation::types::Failure;
use nixfleet_agent::runtime::state_file::StateFileError;
use nixfleet_agent::tools::MissingTools;
use nixfleet_sys::fs::FsError;
use nixfleet_sys::text::chain;
use serde::Serialize;

use super::{REFUSED, USAGE, ui};

/// What a verb answers: its exit code, or why it did nothing.
pub(crate) type Done = Result<ExitCode, Refusal>;

/// What stood in the way, in a word that does not change. A [`Failure`] has its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Kind {
    /// It was called in a way that has no meaning.
    Usage,
    /// Only root may do that.
    NeedsRoot,
    /// There is no service manager that could switch anything.
    NoServiceManager,
    /// Programs that it takes are not there.
    MissingTools,
    /// The configuration cannot be read.
    Configuration,
    /// What the agent keeps cannot be read or written.
    State,
    /// The history does not know that activation.
    NoSuchActivation,
    /// There is nothing to go back from, or nowhere to go back to.
    NoWayBack,
    /// A mistake of ours, or a host on which nothing works.
    Internal,
}

/// What was refused, why, and what to do.
#[derive(Debug)]
#[must_use = "nobody is told"]
pub(crate) struct Refusal {
    blame: Blame,
    code: u8,
    why: String,
    hint: Option<String>,
}

#[derive(Debug)]
enum Blame {
    Kind(Kind),
    /// With the facts in it.
    Failure(Box<Failure>),
}

/// The contract of `--json` for whatever was refused.
#[derive(Serialize)]
pub(super) struct Versioned<'a> {
    version: u32,
    error: Problem<'a>,
    /// The same as an outcome has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    failure: Option<&'a Failure>,
}

/// `error` in whatever `--json` prints of something refused: always these four.
#[derive(Debug, Serialize)]
pub(super) struct Problem<'a> {
    pub(super) kind: Cow<'a, str>,
    pub(super) code: u8,
    pub(super) message: Cow<'a, str>,
    pub(super) hint: Option<&'a str>,
}

impl Problem<'_> {
    /// That of a failure that has changed nothing.
    pub(super) fn of(failure: &Failure, code: u8) -> Self {
        Self {
            kind: word_of(failure).into(),
            code,
            message: failure.to_string().into(),
            hint: ui::failure_hint(failure),
        }
    }
}

/// The word by which JSON knows a kind or a failure: all by itself, or as its tag.
fn word_of(what: &impl Serialize) -> String {
    let value = serde_json::to_value(what).unwrap_or_default();
    value.as_str().or_else(|| value["kind"].as_str()).unwrap_or("internal").to_owned()
}

impl Refusal {
    /// A refusal with exit code 1.
    pub(crate) fn new(kind: Kind, why: impl Into<String>) -> Self {
        Self { blame: Blame::Kind(kind), code: REFUSED, why: why.into(), hint: None }
    }

    /// A call that has no meaning.
    pub(crate) fn usage(why: impl Into<String>) -> Self {
        Self::new(Kind::Usage, why).code(USAGE)
    }

    /// With another exit code.
    pub(crate) fn code(mut self, code: u8) -> Self {
        self.code = code;
        self
    }

    /// With what a person can do about it.
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// A file of the agent's that cannot be used.
    pub(crate) fn state(error: &FsError) -> Self {
        Self::new(Kind::State, chain(error)).hint("`nixfleet-agent check` says more")
    }

    /// What kept an activation from being begun: its own words for what it knows.
    pub(crate) fn of_activation(error: &anyhow::Error) -> Self {
        match error.downcast_ref::<MissingTools>() {
            Some(missing) => missing.into(),
            None => Self::new(Kind::Internal, format!("{error:#}")),
        }
    }

    /// Tells a person, and a script if one listens; the exit code.
    pub(crate) fn show(&self, as_json: bool) -> ExitCode {
        if as_json {
            ui::json(&self.versioned());
        }
        self.tell()
    }

    /// Tells a person; the exit code.
    pub(crate) fn tell(&self) -> ExitCode {
        ui::refuse(self.code, &self.why, self.hint.as_deref())
    }

    /// What a script reads.
    pub(super) fn versioned(&self) -> Versioned<'_> {
        let (kind, failure) = match &self.blame {
            Blame::Kind(kind) => (word_of(kind), None),
            Blame::Failure(failure) => (word_of(failure), Some(&**failure)),
        };
        let message = self.why.as_str().into();
        let error = Problem { kind: kind.into(), code: self.code, message, hint: self.hint.as_deref() };
        Versioned { version: 1, error, failure }
    }
}

impl From<Failure> for Refusal {
    fn from(failure: Failure) -> Self {
        let hint = ui::failure_hint(&failure).map(str::to_owned);
        Self { why: failure.to_string(), blame: Blame::Failure(Box::new(failure)), code: REFUSED, hint }
    }
}

impl From<&MissingTools> for Refusal {
    fn from(missing: &MissingTools) -> Self {
        Self::new(Kind::MissingTools, missing.to_string()).hint(missing.hint())
    }
}

impl From<JournalError> for Refusal {
    fn from(error: JournalError) -> Self {
        Self::new(Kind::State, chain(&error)).hint(error.hint())
    }
}

impl From<StateFileError> for Refusal {
    fn from(error: StateFileError) -> Self {
        Self::new(Kind::State, chain(&error)).hint(error.hint())
    }
}

impl From<NoWayBack> for Refusal {
    fn from(error: NoWayBack) -> Self {
        match error {
            NoWayBack::History(error) => error.into(),
            NoWayBack::NothingRuns | NoWayBack::NotKnown { .. } => {
                Self::new(Kind::NoWayBack, error.to_string())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use nixfleet_agent::activation::types::BusyWith;
    use serde_json::{Value, json};

    use super::*;

    fn shape(refusal: &Refusal) -> Value {
        serde_json::to_value(refusal.versioned()).expect("it is JSON")
    }

    #[test]
    fn a_script_reads_what_was_refused_by_a_word_that_does_not_change() {
        let refusal = Refusal::new(Kind::NeedsRoot, "only root").hint("run it with sudo");
        let error =
            json!({ "kind": "needs-root", "code": 1, "message": "only root", "hint": "run it with sudo" });
        assert_eq!(shape(&refusal), json!({ "version": 1, "error": error }));
        let error = json!({ "kind": "usage", "code": 2, "message": "no such path", "hint": null });
        assert_eq!(shape(&Refusal::usage("no such path")), json!({ "version": 1, "error": error }));
    }

    #[test]
    fn a_failure_keeps_its_own_word_and_all_that_it_knows() {
        let with = BusyWith::SwitchLock { pid: 7 };
        let said = shape(&Failure::Busy { with }.into());
        assert_eq!(said["error"]["kind"], "busy");
        assert_eq!(said["failure"], json!({ "kind": "busy", "with": { "who": "switch-lock", "pid": 7 } }));
        assert_eq!(said["error"]["code"], 1);
        assert!(said["error"]["message"].as_str().is_some_and(|it| it.contains("process 7")), "{said}");
    }

    #[test]
    fn programs_that_are_missing_are_known_through_all_that_asked_for_them() {
        let missing = MissingTools { names: vec!["nix-store"], looked_in: vec!["/usr/bin".into()] };
        let said = shape(&Refusal::of_activation(&anyhow::Error::new(missing)));
        assert_eq!(said["error"]["kind"], "missing-tools");
        assert!(said["error"]["hint"].as_str().is_some_and(|it| it.contains("Nix")), "{said}");
        let said = shape(&Refusal::of_activation(&anyhow::anyhow!("no idea")));
        assert_eq!(said["error"]["kind"], "internal");
    }
}
