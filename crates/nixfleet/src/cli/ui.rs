//! Named channels: data for scripts on stdout, words for people on stderr, a question only on a terminal.

pub(crate) mod table;

use std::error::Error;
use std::io::{BufRead, IsTerminal, Write};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};

use clap::ValueEnum;
use nixfleet_core::model::time::UnixMs;
use nixfleet_sys::text::chain;
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
}

/// What a verb answers.
pub(crate) type Done = Result<(), Complaint>;

impl Complaint {
    /// A refusal in words.
    pub(crate) fn refused(what: impl Into<String>) -> Self {
        Self { blame: Blame::Refused, what: what.into(), hints: Vec::new() }
    }

    /// A call that has no meaning.
    pub(crate) fn usage(what: impl Into<String>) -> Self {
        Self { blame: Blame::Usage, what: what.into(), hints: Vec::new() }
    }

    /// Something outside that does not answer, in words.
    pub(crate) fn silent(what: impl Into<String>) -> Self {
        Self { blame: Blame::Unreachable, what: what.into(), hints: Vec::new() }
    }

    /// Something outside does not answer.
    pub(crate) fn unreachable(error: &dyn Error) -> Self {
        Self { blame: Blame::Unreachable, what: chain(error), hints: Vec::new() }
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
        Self { blame: Blame::NotFound, what: what.into(), hints: Vec::new() }
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

    pub(crate) fn show(&self) -> ExitCode {
        say(&format!("error: {}", self.what));
        for hint in &self.hints {
            say(&format!("\nhint: {hint}"));
        }
        ExitCode::from(self.blame.code())
    }
}

impl<E: Error> From<E> for Complaint {
    fn from(error: E) -> Self {
        Self::refused(chain(&error))
    }
}

/// One line of data.
pub(crate) fn data(line: &str) {
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

/// One line of words.
pub(crate) fn say(line: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{line}");
}

/// Data as JSON, with the version of the contract in front.
pub(crate) fn json(value: &impl serde::Serialize) -> Done {
    #[derive(serde::Serialize)]
    struct Versioned<'a, T> {
        version: u32,
        #[serde(flatten)]
        value: &'a T,
    }
    data(&serde_json::to_string(&Versioned { version: 1, value })?);
    Ok(())
}

/// Lines of data.
pub(crate) fn lines(lines: impl IntoIterator<Item = impl AsRef<str>>) {
    for line in lines {
        data(line.as_ref());
    }
}

/// Lines of words.
pub(crate) fn say_all(lines: impl IntoIterator<Item = impl AsRef<str>>) {
    for line in lines {
        say(line.as_ref());
    }
}

/// Rows under headings.
pub(crate) fn table<C: Clone + Into<Cell>>(headings: &[&str], rows: &[Vec<C>]) {
    let rows: Vec<Vec<Cell>> = rows.iter().map(|row| row.iter().cloned().map(Into::into).collect()).collect();
    lines(table::lines(headings, &rows, Page::stdout()));
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
    fn spans_are_short_and_never_round_up() {
        for (secs, wanted) in
            [(0, "0s"), (119, "119s"), (120, "2m"), (7_199, "119m"), (7_200, "2h"), (172_800, "2d")]
        {
            assert_eq!(span_short(secs * 1_000), wanted);
        }
    }
}
