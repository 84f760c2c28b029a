//! `journalctl`: the last words of a unit, and what it has said since.

use std::str::FromStr;
use std::time::Duration;

use nixfleet_sys::exec::Cmd;
use serde::Deserialize;
use serde_json::Value;

use super::lines::plain;
use super::nix_store::understood;
use super::units::UnitName;
use super::{ToolError, Tools};
use nixfleet_core::nix::NotUnderstood;

/// A journal on a slow disk takes seconds for its first answer.
const JOURNAL_DEADLINE: Duration = Duration::from_secs(20);
/// How long the journal may take to take in what was said to it, where it is for people to read: milliseconds but for a slow disk or a
/// flood. After it the last words may be missing, and a way back waits no longer for them.
pub const FOR_PEOPLE: Duration = Duration::from_secs(3);
/// The same where something is decided by what was said.
pub const TO_DECIDE: Duration = Duration::from_secs(30);
/// Lines of one answer, whatever is asked for: a screenful of a report, many times over.
pub const LINES_MAX: u32 = 10_000;
/// Bytes kept of one line.
const LINE_BYTES_MAX: usize = 4_096;

/// Where in the journal an entry is; the next question begins after it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cursor(String);

impl Cursor {
    /// The cursor as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Cursor {
    type Err = NotUnderstood;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let plain = text.bytes().all(|b| b.is_ascii_alphanumeric() || b"=;-_".contains(&b));
        if plain && !text.is_empty() && text.len() <= 1024 {
            Ok(Self(text.to_owned()))
        } else {
            Err(NotUnderstood::new("a cursor is malformed", text))
        }
    }
}

/// One entry of the journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Where it is.
    pub cursor: Cursor,
    /// When it was written, in microseconds of the wall clock.
    pub at_unix_us: u64,
    /// What was said, printable and bounded; one entry may have several lines.
    pub message: String,
    /// 0 to 7; smaller is worse.
    pub priority: Option<u8>,
}

/// Returns when the journal has taken in all that was said to it until now, or after that time.
pub fn take_in(tools: &Tools, within: Duration) -> Cmd {
    tools.command(&tools.journalctl).arg("--sync").deadline(within)
}

/// The last lines of a unit in this boot, as text.
pub fn last_lines(tools: &Tools, unit: &UnitName, lines: u32) -> Cmd {
    journalctl(tools, lines).args(["--boot", "--output=cat", "--unit", unit.as_str()])
}

/// The entries of a unit in this boot, after the cursor if there is one; the newest where there are too many.
pub fn entries(tools: &Tools, unit: &UnitName, after: Option<&Cursor>, lines: u32) -> Cmd {
    let cmd = journalctl(tools, lines)
        .args(["--output=json", "--output-fields=MESSAGE,PRIORITY"])
        .args(["--unit", unit.as_str()]);
    match after {
        Some(cursor) => cmd.arg(format!("--after-cursor={}", cursor.as_str())),
        None => cmd.arg("--boot"),
    }
}

fn journalctl(tools: &Tools, lines: u32) -> Cmd {
    tools
        .command(&tools.journalctl)
        .args(["--no-pager", "--quiet", "--all"])
        .arg(format!("--lines={}", lines.min(LINES_MAX)))
        .deadline(JOURNAL_DEADLINE)
}

#[derive(Deserialize)]
struct Row {
    #[serde(rename = "__CURSOR")]
    cursor: String,
    #[serde(rename = "__REALTIME_TIMESTAMP")]
    at: String,
    #[serde(rename = "MESSAGE", default)]
    message: Value,
    #[serde(rename = "PRIORITY", default)]
    priority: Value,
}

/// The entries in what `journalctl --output=json` printed, one per line.
pub fn parse_entries(stdout: &str) -> Result<Vec<Entry>, NotUnderstood> {
    stdout.lines().filter(|line| !line.is_empty()).map(entry).collect()
}

fn entry(line: &str) -> Result<Entry, NotUnderstood> {
    let row: Row =
        serde_json::from_str(line).map_err(|_| NotUnderstood::new("a line is not an entry in JSON", line))?;
    Ok(Entry {
        cursor: row.cursor.parse()?,
        at_unix_us: row.at.parse().map_err(|_| NotUnderstood::new("a time is not a number", &row.at))?,
        message: message(&row.message)?,
        priority: row.priority.as_str().and_then(|text| text.parse().ok()).filter(|level| *level <= 7),
    })
}

/// A text; or its bytes, where they are not UTF-8; or several of either; or nothing, where it was too long.
fn message(value: &Value) -> Result<String, NotUnderstood> {
    let odd = || NotUnderstood::new("a message is neither text nor bytes", &value.to_string());
    match value {
        Value::Null => Ok(String::new()),
        Value::String(text) => Ok(bounded(text)),
        Value::Array(parts) if parts.iter().all(Value::is_number) => {
            let byte = |part: &Value| part.as_u64().and_then(|byte| u8::try_from(byte).ok()).ok_or_else(odd);
            let bytes: Vec<u8> = parts.iter().map(byte).collect::<Result<_, _>>()?;
            Ok(bounded(&String::from_utf8_lossy(&bytes)))
        }
        Value::Array(parts) => {
            let texts: Vec<&str> =
                parts.iter().map(|part| part.as_str().ok_or_else(odd)).collect::<Result<_, _>>()?;
            Ok(bounded(&texts.join("\n")))
        }
        Value::Bool(_) | Value::Number(_) | Value::Object(_) => Err(odd()),
    }
}

fn bounded(text: &str) -> String {
    nixfleet_sys::text::tail(plain(text).as_bytes(), LINE_BYTES_MAX)
}

/// The last `lines` of `--output=cat`, printable and bounded.
pub fn parse_last_lines(stdout: &str, lines: u32) -> Vec<String> {
    let all = plain(stdout);
    let kept = nixfleet_sys::text::last_lines(&all, usize::try_from(lines).unwrap_or(usize::MAX));
    kept.iter().map(|line| bounded(line)).collect()
}

impl Tools {
    /// The last lines that the unit has said in this boot, with those that the journal had yet to take in: a unit ends before it has.
    pub async fn last_lines(
        &self,
        unit: &UnitName,
        lines: u32,
        within: Duration,
    ) -> Result<Vec<String>, ToolError> {
        // What cannot be taken in is missing, and what is there is shown all the same.
        let _ = take_in(self, within).run().await;
        understood(last_lines(self, unit, lines), |text| Ok(parse_last_lines(text, lines))).await
    }

    /// What the unit has said since the cursor, at most `lines` entries.
    pub async fn entries(
        &self,
        unit: &UnitName,
        after: Option<&Cursor>,
        lines: u32,
    ) -> Result<Vec<Entry>, ToolError> {
        understood(entries(self, unit, after, lines), parse_entries).await
    }
}

#[cfg(test)]
mod tests;
