//! Words for people. Text from outside is bounded: tails never cut a character (lesson 13) and never carry terminal
//! controls. Errors are joined with their causes here and nowhere else, and so is it told which name was meant.

use std::error::Error;
use std::fmt;

/// The most characters of a name that are compared: no name of ours is longer.
const NAME_CHARS_MAX: usize = 200;

/// The last `bytes_max` bytes of `bytes` as text, cut at a character and, where one is near, at a line.
///
/// Bytes that are not UTF-8 become `U+FFFD`; control characters other than newline and tab are dropped, so that a
/// program's output can be printed on an operator's terminal.
pub fn tail(bytes: &[u8], bytes_max: usize) -> String {
    let from = bytes.len().saturating_sub(bytes_max);
    let mut start = from;
    while start < bytes.len() && start > 0 && is_continuation(bytes[start]) {
        start += 1;
    }
    printable(&String::from_utf8_lossy(&bytes[start..]))
}

/// `text` without control characters, newline and tab excepted, and without those that turn the direction of writing: with
/// them a text shows something else than it says.
pub fn printable(text: &str) -> String {
    text.chars().filter(|c| matches!(c, '\n' | '\t') || !(c.is_control() || turns(*c))).collect()
}

/// Marks, embeddings, overrides and isolates of the bidirectional algorithm, and the separators that are lines to some.
fn turns(c: char) -> bool {
    matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// At most `chars_max` characters of a foreign text, printable and in one line.
pub fn one_line(text: &str, chars_max: usize) -> String {
    printable(text).replace(['\n', '\t'], " ").chars().take(chars_max).collect()
}

/// The lines before the first empty one, in one line.
pub fn first_paragraph(text: &str) -> String {
    let first: Vec<&str> = text.lines().map(str::trim).take_while(|line| !line.is_empty()).collect();
    first.join(" ")
}

/// A place in a text as people count: from 1, columns in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// The line.
    pub line: usize,
    /// The column.
    pub column: usize,
}

impl Place {
    /// The place of the byte at `offset`; that of its character if it is inside of one, the end if it is beyond it.
    pub fn of(text: &str, offset: usize) -> Self {
        let mut offset = offset.min(text.len());
        while !text.is_char_boundary(offset) {
            offset -= 1;
        }
        let before = &text[..offset];
        let column = before.rsplit('\n').next().unwrap_or_default().chars().count();
        Self { line: before.matches('\n').count() + 1, column: column + 1 }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.line, self.column)
    }
}

/// The last `lines_max` lines of `text`, without the empty ones at its end.
pub fn last_lines(text: &str, lines_max: usize) -> Vec<String> {
    let lines: Vec<&str> = text.trim_end().lines().collect();
    let from = lines.len().saturating_sub(lines_max);
    lines[from..].iter().map(|line| (*line).to_owned()).collect()
}

/// The error and its causes in one line.
pub fn chain(error: &dyn Error) -> String {
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

/// The known name that is nearest to `got`; `None` if nothing is near enough to be meant.
///
/// One letter in three may be wrong, missing, too much, or swapped with its neighbour, and never more than three, since
/// then anything would be near. Names that differ only in case, `-`, `_`, `.` and spaces are as near as can be.
pub fn nearest<'a>(got: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let far = (got.chars().count() / 3).clamp(1, 3);
    let got = folded(got);
    let near = known.into_iter().filter_map(|name| {
        let distance = strsim::osa_distance(&got, &folded(name));
        (distance <= far).then_some((distance, name))
    });
    near.min().map(|(_, name)| name)
}

fn folded(name: &str) -> String {
    let fold = |c: char| if matches!(c, '-' | '_' | '.' | ' ') { '-' } else { c.to_ascii_lowercase() };
    name.chars().take(NAME_CHARS_MAX).map(fold).collect()
}

fn is_continuation(byte: u8) -> bool {
    byte & 0b1100_0000 == 0b1000_0000
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_paragraph_ends_at_an_empty_line() {
        assert_eq!(first_paragraph("error: this\n  and that\n\nUsage: it"), "error: this and that");
        assert_eq!(first_paragraph(""), "");
    }

    #[test]
    fn a_tail_never_cuts_inside_a_character() {
        let text = "öäü€𝄞".repeat(7);
        for max in 0..=text.len() {
            let got = tail(text.as_bytes(), max);
            assert!(text.ends_with(&got), "cut at {max}: {got:?}");
            assert!(got.len() <= max);
        }
    }

    #[test]
    fn escape_sequences_do_not_reach_a_terminal() {
        assert_eq!(tail(b"\x1b[31mred\x1b[0m\r\n", 100), "[31mred[0m\n");
    }

    #[test]
    fn the_last_lines_are_the_last_ones() {
        assert_eq!(last_lines("a\nb\nc\n\n", 2), ["b", "c"]);
        assert!(last_lines("", 3).is_empty());
    }

    #[derive(Debug, thiserror::Error)]
    enum Trouble {
        #[error("cannot read `a`")]
        Read(#[source] std::io::Error),
        #[error(transparent)]
        Same(std::io::Error),
    }

    #[test]
    fn an_error_is_joined_with_its_causes_and_says_nothing_twice() {
        let gone = || std::io::Error::other("it is gone");
        assert_eq!(chain(&Trouble::Read(gone())), "cannot read `a`: it is gone");
        assert_eq!(chain(&Trouble::Same(gone())), "it is gone");
    }

    #[test]
    fn what_was_meant_is_found() {
        let known = ["channel", "system", "key", "keys", "max_in_flight"];
        for (got, want) in [
            ("chanel", Some("channel")),
            ("chnanel", Some("channel")),
            ("maxInFlight", Some("max_in_flight")),
            ("max-in-flight", Some("max_in_flight")),
            ("kez", Some("key")),
            ("nothing-like-it", None),
            ("", None),
        ] {
            assert_eq!(nearest(got, known), want, "{got}");
        }
    }

    #[test]
    fn a_short_name_is_not_mistaken_for_any_other() {
        assert_eq!(nearest("x", ["web", "db"]), None);
        assert_eq!(nearest("web2", ["web-1"]), None);
    }

    #[test]
    fn a_place_is_counted_as_people_count() {
        let text = "a = 1\nü = 2";
        let place = |offset| Place::of(text, offset).to_string();
        assert_eq!([place(0), place(5), place(6), place(8)], ["1:1", "1:6", "2:1", "2:2"]);
        assert_eq!(place(7), "2:1", "inside of a character is that character");
        assert_eq!(place(999), "2:6", "beyond the end is the end");
        assert_eq!(Place::of("", 0).to_string(), "1:1");
    }

    #[test]
    fn a_text_in_one_line_has_no_other_and_no_controls() {
        assert_eq!(one_line("a\n\tb\u{1b}[31m", 100), "a  b[31m");
        assert_eq!(one_line("1\u{202e}2 fo 2\u{2069}\u{2028}x\u{9b}y", 100), "12 fo 2xy");
        assert_eq!(one_line("üüü", 2), "üü");
    }

    proptest! {
        #[test]
        fn any_bytes_make_a_printable_tail(bytes: Vec<u8>, max in 0usize..64) {
            let got = tail(&bytes, max);
            prop_assert!(got.chars().all(|c| !c.is_control() || c == '\n' || c == '\t'));
        }
    }
}
