//! Named channels: data for scripts on stdout, words for people on stderr, a question only on a terminal.
//!
//! Much of what is printed was written by others: hosts, a control plane, whoever made a release. Whatever goes to a terminal
//! goes through here, and moves no cursor; what is a line stays one. Documents for programs are JSON, and as they are.

pub(crate) mod table;

use std::error::Error;
use std::io::{BufRead, IsTerminal, Write};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};

use clap::ValueEnum;
use nixfleet_core::model::time::UnixMs;
use nixfleet_sys::text::{chain, one_line, printable};
use serde::Serialize;
use table::{Cell, Page};

/// How a list is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// For people.
    Table,
    /// A versioned contract.
    Json,
    /// One name a line, for scripts.
    Name,
}

/// Who reads what a verb answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Readers {
    /// People: words, and tables or names.
    People,
    /// Programs, as `-o json` says; people have stderr then.
    Programs,
}

/// Whose fault it is that something was not done; the exit code says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Blame {
    /// What was asked for is refused, or did not work; no host or document is left half done.
    Refused,
    /// What was asked about is not there.
    NotFound,
    /// It was called in a way that has no meaning.
    Usage,
    /// Something outside does not answer.
    Unreachable,
}

impl Blame {
    /// For programs; a word that does not change.
    fn word(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::NotFound => "not-found",
            Self::Usage => "usage",
            Self::Unreachable => "unreachable",
        }
    }

    fn code(self) -> u8 {
        match self {
            Self::Refused | Self::NotFound => 1,
            Self::Usage => 2,
            Self::Unreachable => 3,
        }
    }
}

/// What was refused, why, and what to do.
#[derive(Debug)]
pub(crate) struct Complaint {
    blame: Blame,
    what: String,
    hints: Vec<String>,
    /// What programs get beside it.
    facts: Option<serde_json::Value>,
}

/// What `-o json` prints of whatever was not done; version 1.
#[derive(Serialize)]
struct NotDone<'a> {
    #[serde(flatten)]
    facts: Option<&'a serde_json::Value>,
    error: Problem<'a>,
}

/// `error` in it: always these four, as in the JSON of the agent.
#[derive(Serialize)]
struct Problem<'a> {
    kind: &'static str,
    code: u8,
    message: &'a str,
    hint: Option<String>,
}

/// What a verb answers.
pub(crate) type Done = Result<(), Complaint>;

impl Complaint {
    /// A refusal in words.
    pub(crate) fn refused(what: impl Into<String>) -> Self {
        Self::new(Blame::Refused, what.into())
    }

    /// A call that has no meaning.
    pub(crate) fn usage(what: impl Into<String>) -> Self {
        Self::new(Blame::Usage, what.into())
    }

    /// Something outside that does not answer, in words.
    pub(crate) fn silent(what: impl Into<String>) -> Self {
        Self::new(Blame::Unreachable, what.into())
    }

    /// Something outside does not answer.
    pub(crate) fn unreachable(error: &dyn Error) -> Self {
        Self::new(Blame::Unreachable, chain(error))
    }

    fn new(blame: Blame, what: String) -> Self {
        Self { blame, what, hints: Vec::new(), facts: None }
    }

    /// With what programs get beside it, an object: what was done all the same, or where the faults are.
    pub(crate) fn with(mut self, facts: &impl Serialize) -> Self {
        self.facts = serde_json::to_value(facts).ok();
        self
    }

    /// With one more hint.
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }

    /// With whom it is about in front.
    pub(crate) fn about(mut self, whom: &str) -> Self {
        self.what = format!("{whom}: {}", self.what);
        self
    }

    /// What was asked about is not there, in words.
    pub(crate) fn not_found(what: impl Into<String>) -> Self {
        Self::new(Blame::NotFound, what.into())
    }

    /// Whether what was asked about is not there.
    pub(crate) fn is_not_found(&self) -> bool {
        self.blame == Blame::NotFound
    }

    /// Whether something outside does not answer.
    pub(crate) fn is_unreachable(&self) -> bool {
        self.blame == Blame::Unreachable
    }

    /// What was refused.
    pub(crate) fn what(&self) -> &str {
        &self.what
    }

    /// Tells programs, if they read the answer, and people; the exit code.
    pub(crate) fn show(&self, readers: Readers) -> ExitCode {
        match readers {
            Readers::People => {}
            Readers::Programs => _ = self.show_to_programs(),
        }
        say(&format!("error: {}", self.what));
        for hint in &self.hints {
            say(&format!("\nhint: {hint}"));
        }
        ExitCode::from(self.blame.code())
    }

    /// Tells programs alone; the exit code.
    pub(crate) fn show_to_programs(&self) -> ExitCode {
        if let Err(other) = json(&self.not_done()) {
            say(&format!("error: {}", other.what));
        }
        ExitCode::from(self.blame.code())
    }

    fn not_done(&self) -> NotDone<'_> {
        let Self { blame, what, hints, facts } = self;
        let hint = (!hints.is_empty()).then(|| hints.join("\n"));
        let error = Problem { kind: blame.word(), code: blame.code(), message: what, hint };
        NotDone { facts: facts.as_ref(), error }
    }
}

impl<E: Error> From<E> for Complaint {
    fn from(error: E) -> Self {
        Self::refused(chain(&error))
    }
}

/// One line of data.
pub(crate) fn data(line: &str) {
    as_it_is(&one_line(line, usize::MAX));
}

/// A line of a document, or of a table: it may have colour, and what others wrote in it was cleaned before.
pub(crate) fn as_it_is(line: &str) {
    // A reader that is gone is no reason to fail: what was asked for is done.
    if writeln!(std::io::stdout().lock(), "{line}").is_err() {
        STDOUT_GONE.store(true, Ordering::Relaxed);
    }
}

static STDOUT_GONE: AtomicBool = AtomicBool::new(false);

/// Whether nobody reads the data any more: what goes on for ever ends then.
pub(crate) fn is_stdout_gone() -> bool {
    STDOUT_GONE.load(Ordering::Relaxed)
}

/// Words; a foreign text in them may have lines of its own, as the last words of a program.
pub(crate) fn say(words: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{}", printable(words));
}

/// Data as JSON, with the version of the contract in front.
pub(crate) fn json(value: &impl Serialize) -> Done {
    #[derive(Serialize)]
    struct Versioned<'a, T> {
        version: u32,
        #[serde(flatten)]
        value: &'a T,
    }
    as_it_is(&serde_json::to_string(&Versioned { version: 1, value })?);
    Ok(())
}

/// Lines of data.
pub(crate) fn lines(lines: impl IntoIterator<Item = impl AsRef<str>>) {
    for line in lines {
        data(line.as_ref());
    }
}

/// Lines of tables.
pub(crate) fn painted(lines: impl IntoIterator<Item = impl AsRef<str>>) {
    for line in lines {
        as_it_is(line.as_ref());
    }
}

/// Lines of words.
pub(crate) fn say_all(lines: impl IntoIterator<Item = impl AsRef<str>>) {
    for line in lines {
        say(&one_line(line.as_ref(), usize::MAX));
    }
}

/// Rows under headings.
pub(crate) fn table<C: Clone + Into<Cell>>(headings: &[&str], rows: &[Vec<C>]) {
    let rows: Vec<Vec<Cell>> = rows.iter().map(|row| row.iter().cloned().map(Into::into).collect()).collect();
    painted(table::lines(headings, &rows, Page::stdout()));
}

/// Whether a person can be asked.
pub(crate) fn is_terminal() -> bool {
    std::io::stdin().is_terminal() && std::io::stderr().is_terminal()
}

/// Asks before something is done that cannot be taken back. `--yes` answers for scripts; without a terminal there is
/// nobody to ask.
pub(crate) fn confirm(question: &str, yes: bool) -> Done {
    if yes {
        return Ok(());
    }
    if !is_terminal() {
        return Err(Complaint::refused(format!("nobody can be asked: {question}"))
            .hint("look at what stands above, then say `--yes`"));
    }
    let _ = write!(std::io::stderr().lock(), "{question} [y/N] ");
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer)?;
    match answer.trim() {
        "y" | "Y" | "yes" => Ok(()),
        _ => Err(Complaint::refused("the answer was no; nothing was changed")),
    }
}

/// A count with its noun: `1 host`, `3 hosts`.
pub(crate) fn counted(count: impl std::fmt::Display, one: &str) -> String {
    let count = count.to_string();
    if count == "1" { format!("1 {one}") } else { format!("{count} {one}s") }
}

/// So many hosts.
pub(crate) fn hosts(count: impl std::fmt::Display) -> String {
    counted(count, "host")
}

/// How long ago that was, for people: `12s`, `5m`, `3h`, `2d`. A time that is yet to come is `0s` ago: clocks differ.
pub(crate) fn ago(time: UnixMs, now: UnixMs) -> String {
    span_short(now.ms_since(time))
}

/// A span for people, in its largest unit.
pub(crate) fn span_short(ms: u64) -> String {
    match ms / 1_000 {
        secs @ 0..=119 => format!("{secs}s"),
        secs @ 120..=7_199 => format!("{}m", secs / 60),
        secs @ 7_200..=172_799 => format!("{}h", secs / 3_600),
        secs => format!("{}d", secs / 86_400),
    }
}

/// A size for people.
pub(crate) fn bytes(bytes: u64) -> String {
    let unit = |shift: u32, name: &str| {
        let tenths = (u128::from(bytes) * 10) >> shift;
        format!("{}.{} {name}", tenths / 10, tenths % 10)
    };
    match bytes {
        0..=1023 => format!("{bytes} B"),
        1024..=0xf_ffff => unit(10, "KiB"),
        0x10_0000..=0x3fff_ffff => unit(20, "MiB"),
        _ => unit(30, "GiB"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_reads_what_was_not_done_by_a_word_that_does_not_change_beside_what_was() {
        let complaint = Complaint::not_found("no host is called `web3`").hint("did you mean `web-3`?");
        let error = serde_json::json!({
            "kind": "not-found", "code": 1, "message": "no host is called `web3`", "hint": "did you mean `web-3`?"
        });
        let read = |complaint: &Complaint| serde_json::to_value(complaint.not_done()).expect("it is JSON");
        assert_eq!(read(&complaint), serde_json::json!({ "error": error }));
        let complaint = complaint.with(&serde_json::json!({ "acts": ["web-1"] }));
        assert_eq!(read(&complaint), serde_json::json!({ "acts": ["web-1"], "error": error }));
        let silent = read(&Complaint::silent("nobody answers"));
        assert_eq!((&silent["error"]["code"], &silent["error"]["hint"]), (&3.into(), &().into()));
    }

    #[test]
    fn spans_are_short_and_never_round_up() {
        for (secs, wanted) in
            [(0, "0s"), (119, "119s"), (120, "2m"), (7_199, "119m"), (7_200, "2h"), (172_800, "2d")]
        {
            assert_eq!(span_short(secs * 1_000), wanted);
        }
    }
}
