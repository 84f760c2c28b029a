//! Named channels: data for scripts on stdout, words for people on stderr, a question only on a terminal.

use std::error::Error;
use std::io::{BufRead, IsTerminal, Write};
use std::process::ExitCode;

use clap::ValueEnum;
use nixfleet_core::model::time::UnixMs;

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
    /// What was asked for is refused, or did not work; nothing is half done.
    Refused,
    /// It was called in a way that has no meaning.
    Usage,
    /// Something outside does not answer.
    Unreachable,
}

impl Blame {
    fn code(self) -> u8 {
        match self {
            Self::Refused => 1,
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

    /// Something outside does not answer.
    pub(crate) fn unreachable(error: &dyn Error) -> Self {
        Self { blame: Blame::Unreachable, what: chain(error), hints: Vec::new() }
    }

    /// With one more hint.
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
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

/// The error and its causes in one line: the only place where they are joined.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut out = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let words = error.to_string();
        // A transparent error and its inner one say the same.
        if !out.ends_with(&words) {
            out.push_str(": ");
            out.push_str(&words);
        }
        cause = error.source();
    }
    out
}

/// One line of data.
pub(crate) fn data(line: &str) {
    // A reader that is gone is no reason to fail: what was asked for is done.
    let _ = writeln!(std::io::stdout().lock(), "{line}");
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

/// Rows under headings, in columns as wide as their longest cell.
pub(crate) fn table(headings: &[&str], rows: &[Vec<String>]) {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
        cells.chain([headings[column].len()]).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..headings.len()).map(width).collect();
    let line = |cells: &[String]| {
        let padded = cells.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        padded.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    data(&line(&headings.iter().map(|heading| (*heading).to_owned()).collect::<Vec<_>>()));
    lines(rows.iter().map(|row| line(row)));
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

/// A point in time for people: UTC, to the second.
pub(crate) fn at(time: UnixMs) -> String {
    let ms = i64::try_from(time.get()).unwrap_or(i64::MAX);
    match jiff::Timestamp::from_millisecond(ms) {
        Ok(stamp) => stamp.strftime("%Y-%m-%d %H:%M:%S UTC").to_string(),
        // Beyond the year 9999.
        Err(_) => format!("{ms} ms after 1970"),
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
