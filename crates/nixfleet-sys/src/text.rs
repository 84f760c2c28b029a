//! Bounded text from outside: tails that never cut a character (lesson 13) and never carry terminal controls.

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

/// `text` without control characters, newline and tab excepted.
pub fn printable(text: &str) -> String {
    text.chars().filter(|c| !c.is_control() || *c == '\n' || *c == '\t').collect()
}

/// The last `lines_max` lines of `text`, without the empty ones at its end.
pub fn last_lines(text: &str, lines_max: usize) -> Vec<String> {
    let lines: Vec<&str> = text.trim_end().lines().collect();
    let from = lines.len().saturating_sub(lines_max);
    lines[from..].iter().map(|line| (*line).to_owned()).collect()
}

fn is_continuation(byte: u8) -> bool {
    byte & 0b1100_0000 == 0b1000_0000
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

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

    proptest! {
        #[test]
        fn any_bytes_make_a_printable_tail(bytes: Vec<u8>, max in 0usize..64) {
            let got = tail(&bytes, max);
            prop_assert!(got.chars().all(|c| !c.is_control() || c == '\n' || c == '\t'));
        }
    }
}
