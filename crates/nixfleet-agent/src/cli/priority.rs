//! What a line weighs, in the words of systemd's journal: `<3>` in front of it, which the journal takes off and keeps
//! (`sd-daemon(3)`). `journalctl -p err -u nixfleet-agent` then shows what went wrong, and nothing else.
//!
//! Only what goes straight to the journal has it; `$JOURNAL_STREAM` names the file that is the journal, and is also there where
//! stderr leads elsewhere. Every line has one, so that a foreign text in it cannot begin with another.

use std::fmt::Write as _;
use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::sync::OnceLock;

use nixfleet_agent::activation::types::Weight;

/// Whether whoever reads stderr keeps priorities.
pub(super) fn is_kept() -> bool {
    static KEPT: OnceLock<bool> = OnceLock::new();
    *KEPT.get_or_init(|| {
        let named = std::env::var("JOURNAL_STREAM").ok();
        let stderr = std::io::stderr().as_fd().try_clone_to_owned().and_then(|fd| File::from(fd).metadata());
        named.zip(stderr.ok()).is_some_and(|(named, meta)| is_stream(&named, meta.dev(), meta.ino()))
    })
}

/// Whether the file of these numbers is the one that `$JOURNAL_STREAM` names: device and inode in decimal.
fn is_stream(named: &str, device: u64, inode: u64) -> bool {
    named.split_once(':').is_some_and(|(dev, ino)| dev.parse() == Ok(device) && ino.parse() == Ok(inode))
}

/// The text with its priority in front of each line; empty ones are for people's eyes, and left out.
pub(super) fn with(weight: Weight, text: &str) -> String {
    let level = match weight {
        Weight::Error => 3,
        Weight::Warning => 4,
        Weight::Note => 6,
    };
    let mut out = String::new();
    for line in text.lines().filter(|line| !line.trim().is_empty()) {
        let between = if out.is_empty() { "" } else { "\n" };
        let _ = write!(out, "{between}<{level}>{line}");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_has_the_priority_of_the_whole_whatever_it_begins_with() {
        assert_eq!(with(Weight::Note, "step: check"), "<6>step: check");
        assert_eq!(with(Weight::Warning, "two\n<0>lines"), "<4>two\n<4><0>lines");
        assert_eq!(with(Weight::Error, "\nhint: run it with sudo\n"), "<3>hint: run it with sudo");
    }

    #[test]
    fn the_journal_is_known_by_its_file_and_not_by_the_variable_alone() {
        assert!(is_stream("9:48021", 9, 48_021));
        assert!(!is_stream("9:48021", 9, 48_022), "stderr leads elsewhere");
        for nonsense in ["", "9", "9:", ":48021", "9:48021:1", "-9:48021"] {
            assert!(!is_stream(nonsense, 9, 48_021), "{nonsense}");
        }
    }
}
