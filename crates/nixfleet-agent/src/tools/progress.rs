//! What `nix-store --realise --log-format internal-json` says of its progress, line by line.
//!
//! A line is `@nix ` and a JSON object. Activities have ids; those of type [`COPY_PATH`] report the bytes of one
//! unpacked path, the one of type [`COPY_PATHS`] counts paths, and the outermost one announces the totals. Unpacked
//! bytes are counted and not downloaded ones, because a cache reached by `file://` reports no downloads; a path below
//! 64 KiB reports no bytes at all, and only its completion counts. Everything that is not such a line, or not sound
//! JSON, is words for a person.

use std::collections::{BTreeMap, VecDeque};

use nixfleet_sys::exec::{Heard, Listener};
use serde::Deserialize;

use super::lines::plain;

const COPY_PATH: u64 = 100;
const FILE_TRANSFER: u64 = 101;
const COPY_PATHS: u64 = 103;
const BUILD_LOG_LINE: u64 = 101;
const UNTRUSTED_PATH: u64 = 102;
const CORRUPTED_PATH: u64 = 103;
const PROGRESS: u64 = 105;
const SET_EXPECTED: u64 = 106;

/// Activities followed at once; Nix itself runs at most a few hundred (`http-connections` is 25).
const ACTIVITIES_MAX: usize = 4_096;
/// Messages kept: enough for a warning per path of a small closure and the errors after them.
const MESSAGES_MAX: usize = 256;
/// Bytes kept of one message.
const MESSAGE_BYTES_MAX: usize = 2_048;
/// How much more than announced may come of one path before the download is ended: the size is part of what was
/// signed, so this is slack for how a version counts and not for what a cache sends.
const BEYOND_BYTES_MAX: u64 = 1 << 20;
/// Paths kept that Nix itself called untrusted or corrupt.
const PATHS_MAX: usize = 10_000;

/// How far a realisation is, in unpacked bytes and whole paths; each number only grows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Progress {
    /// Unpacked bytes so far.
    pub bytes_done: u64,
    /// Unpacked bytes of all paths that Nix knows of so far; 0 while it knows of none.
    pub bytes_expected: u64,
    /// Paths that are complete.
    pub paths_done: u64,
    /// Paths that Nix knows of so far, the complete ones included.
    pub paths_expected: u64,
}

/// One sound line of the protocol.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NixLine {
    /// A message for a person, without colour.
    Message {
        /// 0 is an error, 1 a warning, higher is chatter.
        level: u64,
        /// The text.
        text: String,
    },
    /// An activity begins.
    Start {
        /// Its id.
        id: u64,
        /// Its type.
        kind: u64,
        /// The first of its fields that is a text: the path, for one that copies a path.
        about: String,
    },
    /// An activity is over.
    Stop {
        /// Its id.
        id: u64,
    },
    /// An activity is so far.
    Progress {
        /// Its id.
        id: u64,
        /// Bytes or paths so far.
        done: u64,
        /// Bytes or paths in all.
        expected: u64,
    },
    /// Activities of one type will make so much in all.
    Expected {
        /// The type.
        kind: u64,
        /// Bytes or paths in all.
        expected: u64,
    },
    /// A line that a builder printed.
    BuildLog(String),
    /// `nix store verify`: this path is not signed well enough.
    Untrusted(String),
    /// `nix store verify`: this path was modified.
    Corrupted(String),
    /// Something sound that says nothing we use.
    Other,
}

/// The longest line that is read as JSON: a message with a long build log stays far below.
const LINE_BYTES_MAX: usize = 64 << 10;

#[derive(Deserialize)]
struct Raw {
    action: String,
    #[serde(default)]
    id: u64,
    #[serde(default)]
    level: u64,
    #[serde(default, rename = "type")]
    kind: u64,
    #[serde(default)]
    msg: String,
    #[serde(default)]
    fields: Vec<Field>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Field {
    Number(u64),
    Text(String),
    Odd(serde::de::IgnoredAny),
}

/// The line's meaning; `None` when it is not of the protocol or not sound, and so is words.
pub fn parse_line(line: &[u8]) -> Option<NixLine> {
    let json = line.strip_prefix(b"@nix ")?;
    if json.len() > LINE_BYTES_MAX {
        return None;
    }
    let raw: Raw = serde_json::from_slice(json).ok()?;
    Some(match raw.action.as_str() {
        "msg" => NixLine::Message { level: raw.level, text: plain(&raw.msg) },
        "start" => NixLine::Start { id: raw.id, kind: raw.kind, about: first_text(raw.fields) },
        "stop" => NixLine::Stop { id: raw.id },
        "result" => result_line(raw),
        _ => NixLine::Other,
    })
}

fn first_text(fields: Vec<Field>) -> String {
    let mut texts = fields.into_iter().filter_map(|field| match field {
        Field::Text(text) => Some(plain(&text)),
        Field::Number(_) | Field::Odd(_) => None,
    });
    texts.next().unwrap_or_default()
}

fn result_line(raw: Raw) -> NixLine {
    let id = raw.id;
    let mut fields = raw.fields.into_iter();
    match (raw.kind, fields.next(), fields.next()) {
        (PROGRESS, Some(Field::Number(done)), Some(Field::Number(expected))) => {
            NixLine::Progress { id, done, expected }
        }
        (SET_EXPECTED, Some(Field::Number(kind)), Some(Field::Number(expected))) => {
            NixLine::Expected { kind, expected }
        }
        (BUILD_LOG_LINE, Some(Field::Text(text)), _) => NixLine::BuildLog(plain(&text)),
        (UNTRUSTED_PATH, Some(Field::Text(path)), _) => NixLine::Untrusted(path),
        (CORRUPTED_PATH, Some(Field::Text(path)), _) => NixLine::Corrupted(path),
        _ => NixLine::Other,
    }
}

/// Hears a Nix command that runs with `--log-format internal-json`.
///
/// It calls back on each change of the totals, tells the stall watch that only growth is progress, ends a cache that
/// sends more of a path than it announced (it would fill the disk), and keeps the messages, since `exec` would keep
/// them as JSON.
pub struct NixListener<F> {
    on_progress: F,
    told: Progress,
    copies: BTreeMap<u64, Copy>,
    counters: BTreeMap<u64, (u64, u64)>,
    /// Bytes of copies that have stopped.
    finished_bytes: u64,
    bytes_expected: u64,
    /// The messages are a list of paths about to be fetched: said again by the progress.
    listing: bool,
    heard: NixWords,
}

/// One activity whose bytes count.
#[derive(Debug, Clone)]
struct Copy {
    counts: bool,
    done: u64,
    about: String,
}

/// What a Nix command said, bounded.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NixWords {
    /// Messages and stray lines in order, without colour; the oldest go first when there are more than 256.
    pub messages: VecDeque<String>,
    /// Paths that Nix reported as not signed well enough.
    pub untrusted: Vec<String>,
    /// Paths that Nix reported as modified.
    pub corrupted: Vec<String>,
}

impl NixWords {
    /// All messages, one per line.
    pub fn text(&self) -> String {
        let lines: Vec<&str> = self.messages.iter().map(String::as_str).collect();
        lines.join("\n")
    }

    fn keep(&mut self, text: &str) {
        let text = nixfleet_sys::text::tail(plain(text).trim_end().as_bytes(), MESSAGE_BYTES_MAX);
        if text.is_empty() {
            return;
        }
        if self.messages.len() >= MESSAGES_MAX {
            self.messages.pop_front();
        }
        self.messages.push_back(text);
    }
}

fn keep_path(paths: &mut Vec<String>, path: String) {
    if paths.len() < PATHS_MAX {
        paths.push(path);
    }
}

impl<F: FnMut(Progress)> NixListener<F> {
    /// A listener that calls `on_progress` whenever one of the four numbers has grown.
    pub fn new(on_progress: F) -> Self {
        Self {
            on_progress,
            told: Progress::default(),
            copies: BTreeMap::new(),
            counters: BTreeMap::new(),
            finished_bytes: 0,
            bytes_expected: 0,
            listing: false,
            heard: NixWords::default(),
        }
    }

    /// What was said.
    pub fn into_words(self) -> NixWords {
        self.heard
    }

    /// How far it got.
    pub fn progress(&self) -> Progress {
        self.told
    }

    /// Takes one line of the protocol; says whether bytes or paths have grown.
    fn take(&mut self, line: NixLine) -> Heard {
        match line {
            NixLine::Message { level: _, text } => self.message(&text),
            NixLine::BuildLog(text) => self.heard.keep(&text),
            NixLine::Untrusted(path) => keep_path(&mut self.heard.untrusted, path),
            NixLine::Corrupted(path) => keep_path(&mut self.heard.corrupted, path),
            NixLine::Start { id, kind, about } => self.start(id, kind, about),
            NixLine::Stop { id } => self.stop(id),
            NixLine::Progress { id, done, expected } => return self.advance(id, done, expected),
            NixLine::Expected { kind: COPY_PATH, expected } => {
                self.bytes_expected = self.bytes_expected.max(expected);
                self.tell();
            }
            NixLine::Expected { .. } | NixLine::Other => {}
        }
        Heard::Words
    }

    /// Keeps a message, unless it belongs to the plan or is the warning that nobody holds a root (the caller does).
    fn message(&mut self, text: &str) {
        let in_list = self.listing && text.starts_with("  /nix/store/");
        self.listing = in_list || text.contains(" will be fetched (");
        if !self.listing && !text.contains("you did not specify '--add-root'") {
            self.heard.keep(text);
        }
    }

    fn start(&mut self, id: u64, kind: u64, about: String) {
        if self.copies.len() + self.counters.len() >= ACTIVITIES_MAX {
            return;
        }
        match kind {
            COPY_PATH => drop(self.copies.insert(id, Copy { counts: true, done: 0, about })),
            FILE_TRANSFER => drop(self.copies.insert(id, Copy { counts: false, done: 0, about })),
            COPY_PATHS => drop(self.counters.insert(id, (0, 0))),
            _ => {}
        }
    }

    fn stop(&mut self, id: u64) {
        if let Some(copy) = self.copies.remove(&id).filter(|copy| copy.counts) {
            self.finished_bytes = self.finished_bytes.saturating_add(copy.done);
        }
    }

    fn advance(&mut self, id: u64, done: u64, expected: u64) -> Heard {
        let grown = if let Some(copy) = self.copies.get_mut(&id) {
            if copy.counts && expected > 0 && done.saturating_sub(expected) > BEYOND_BYTES_MAX {
                let sent = format!("{}: {done} bytes came, and {expected} were announced", copy.about);
                self.heard.keep(&sent);
                return Heard::Enough;
            }
            let grown = done > copy.done;
            copy.done = copy.done.max(done);
            grown
        } else if let Some(counter) = self.counters.get_mut(&id) {
            let grown = done > counter.0;
            *counter = (counter.0.max(done), counter.1.max(expected));
            grown
        } else {
            false
        };
        self.tell();
        if grown { Heard::Progress } else { Heard::Words }
    }

    /// Calls back if the totals have changed.
    fn tell(&mut self) {
        let running = self.copies.values().filter(|copy| copy.counts).map(|copy| copy.done);
        let done = running.fold(self.finished_bytes, u64::saturating_add);
        let (paths_done, paths_expected) = self
            .counters
            .values()
            .fold((0_u64, 0_u64), |sum, one| (sum.0.saturating_add(one.0), sum.1.saturating_add(one.1)));
        // Small paths report no bytes: when all paths are there, all bytes are.
        let complete = paths_expected > 0 && paths_done >= paths_expected;
        let done = if complete { self.bytes_expected } else { done };
        let now = Progress {
            // A path that was begun anew elsewhere counts twice: never show more than all.
            bytes_done: done.min(self.bytes_expected).max(self.told.bytes_done),
            bytes_expected: self.bytes_expected,
            paths_done: paths_done.max(self.told.paths_done),
            paths_expected: paths_expected.max(self.told.paths_expected),
        };
        if now != self.told {
            self.told = now;
            (self.on_progress)(now);
        }
    }
}

impl<F: FnMut(Progress)> Listener for NixListener<F> {
    fn line(&mut self, line: &[u8]) -> Heard {
        if let Some(sound) = parse_line(line) {
            return self.take(sound);
        }
        self.heard.keep(&String::from_utf8_lossy(line));
        Heard::Words
    }

    /// Whatever is not of the protocol; messages are in [`NixWords`] instead, as text.
    fn is_word(&self, line: &[u8]) -> bool {
        parse_line(line).is_none()
    }
}

#[cfg(test)]
mod tests;
