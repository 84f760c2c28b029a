//! What the parsers share: text without escapes, a bounded listener, and store paths out of lines.

use nixfleet_core::ids::StorePath;
use nixfleet_sys::exec::{Heard, Listener};

use nixfleet_core::nix::NotUnderstood;

/// Standard error kept where it is the answer: a plan of 100,000 paths is about 9 MB.
pub(super) const HEARD_BYTES_MAX: usize = 16 << 20;

/// Keeps all of standard error up to [`HEARD_BYTES_MAX`]: `exec` itself keeps only its end.
#[derive(Debug, Default)]
pub(super) struct Hearing {
    text: Vec<u8>,
    overfull: bool,
}

impl Hearing {
    /// What was heard; an error if it was more than is kept, since half an answer is none.
    pub(super) fn into_text(self) -> Result<String, NotUnderstood> {
        if self.overfull {
            return Err(NotUnderstood::new("it printed more than 16 MiB on its standard error", ""));
        }
        Ok(String::from_utf8_lossy(&self.text).into_owned())
    }
}

impl Listener for Hearing {
    fn line(&mut self, line: &[u8]) -> Heard {
        if self.text.len() + line.len() >= HEARD_BYTES_MAX {
            self.overfull = true;
        } else {
            self.text.extend_from_slice(line);
            self.text.push(b'\n');
        }
        Heard::Words
    }
    fn is_word(&self, _line: &[u8]) -> bool {
        true
    }
}

/// The text without terminal escapes (`ESC [ … letter`) and other control characters except line ends.
pub(super) fn plain(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        if c == '\u{1b}' {
            if chars.next_if_eq(&'[').is_some() {
                while chars.next().is_some_and(|c| !('@'..='~').contains(&c)) {}
            }
        } else if c == '\n' || c == '\t' || !c.is_control() {
            out.push(c);
        }
    }
    out
}

/// One store path per line, no line without one.
pub(super) fn store_paths(text: &str) -> Result<Vec<StorePath>, NotUnderstood> {
    text.lines().map(|line| store_path(line, "a line is not a store path")).collect()
}

/// The text as a store path.
pub(super) fn store_path(text: &str, why: &'static str) -> Result<StorePath, NotUnderstood> {
    text.parse().map_err(|_| NotUnderstood::new(why, text))
}

/// The first `'/nix/store/…'` in quotes of a message.
pub(super) fn quoted_path(text: &str) -> Option<StorePath> {
    let mut rest = text;
    while let Some(at) = rest.find("'/nix/store/") {
        let inner = &rest[at + 1..];
        let end = inner.find('\'')?;
        if let Ok(path) = inner[..end].parse() {
            return Some(path);
        }
        rest = &inner[end..];
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn escapes_go_and_words_stay() {
        assert_eq!(plain("\u{1b}[31;1merror:\u{1b}[0m no\u{7}\n\tway\u{1b}"), "error: no\n\tway");
        assert_eq!(plain("\u{1b}[31"), "");
    }

    proptest! {
        #[test]
        fn no_text_has_an_escape_left(text in any::<String>()) {
            let escaped = plain(&text).contains('\u{1b}');
            prop_assert!(!escaped);
            let _ = quoted_path(&text);
        }
    }
}
