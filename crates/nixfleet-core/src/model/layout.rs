//! Where a release source has which document: the paths of a static folder, the same on a disk, on a web server and on
//! the control plane.
//!
//! ```text
//! root/2.json                               root 2; the first is in the host's configuration
//! channels/stable/latest                    the number of the channel's newest release: digits and a newline
//! channels/stable/42/release.json           release 42
//! channels/stable/42/hosts/web-1.json       what it says to one host, with the proof
//! ```
//!
//! All names are safe as they are in a path and in a URL (see [`super::names`]). Whoever publishes writes `latest` last,
//! and replaces it as a whole. It is not signed: whoever changes it can hide a release, as whoever serves the folder can
//! anyway, and can make no other count.

use super::names::{ChannelName, EXACT_MAX, HostName, Seq};

/// The longest `latest`, in bytes: the digits of any 64-bit number, and the newline.
pub const LATEST_LEN_MAX: usize = 21;

/// The path of root `version`.
pub fn root(version: u64) -> String {
    format!("root/{version}.json")
}

/// The path of the number of the newest release of `channel`.
pub fn latest(channel: &ChannelName) -> String {
    format!("channels/{channel}/latest")
}

/// The path of release `seq` of `channel`.
pub fn release(channel: &ChannelName, seq: Seq) -> String {
    format!("channels/{channel}/{seq}/release.json")
}

/// The path of what release `seq` of `channel` says to `host`.
pub fn entry(channel: &ChannelName, seq: Seq, host: &HostName) -> String {
    format!("channels/{channel}/{seq}/hosts/{host}.json")
}

/// The contents of `latest` that name `seq`.
pub fn write_latest(seq: Seq) -> String {
    format!("{seq}\n")
}

/// Why bytes are not the contents of `latest`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotLatest {
    /// There are more than [`LATEST_LEN_MAX`].
    #[error("it is longer than a number and a newline")]
    TooLong,
    /// It does not end with a newline, so it may be half of it.
    #[error("it does not end with a newline, so a part of it may be missing")]
    Unfinished,
    /// It is not a number in its one form.
    #[error("it is not a number: digits, without a zero in front, and one newline")]
    NotANumber,
    /// The number is larger than any release has.
    #[error("the number is larger than {EXACT_MAX}, the last that a release can have")]
    TooLarge,
}

/// Reads what [`write_latest`] wrote, and nothing else.
pub fn read_latest(bytes: &[u8]) -> Result<Seq, NotLatest> {
    if bytes.len() > LATEST_LEN_MAX {
        return Err(NotLatest::TooLong);
    }
    let Some((b'\n', digits)) = bytes.split_last() else {
        return Err(NotLatest::Unfinished);
    };
    let is_number = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    if !is_number || (digits[0] == b'0' && digits.len() > 1) {
        return Err(NotLatest::NotANumber);
    }
    let text = std::str::from_utf8(digits).expect("digits are ASCII");
    text.parse().ok().and_then(|number| Seq::new(number).ok()).ok_or(NotLatest::TooLarge)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_paths_are_those_of_the_description() {
        let (channel, host) = ("stable".parse().expect("a name"), "web-1".parse().expect("a name"));
        let seq = Seq::new(42).expect("in range");
        assert_eq!(root(2), "root/2.json");
        assert_eq!(latest(&channel), "channels/stable/latest");
        assert_eq!(release(&channel, seq), "channels/stable/42/release.json");
        assert_eq!(entry(&channel, seq, &host), "channels/stable/42/hosts/web-1.json");
    }

    #[test]
    fn a_number_has_one_form_only() {
        for (bytes, why) in [
            ("", NotLatest::Unfinished),
            ("42", NotLatest::Unfinished),
            ("\n", NotLatest::NotANumber),
            ("042\n", NotLatest::NotANumber),
            ("+42\n", NotLatest::NotANumber),
            (" 42\n", NotLatest::NotANumber),
            ("42\r\n", NotLatest::NotANumber),
            ("42\n\n", NotLatest::NotANumber),
            ("٤٢\n", NotLatest::NotANumber),
            ("<html>\n", NotLatest::NotANumber),
            ("9007199254740992\n", NotLatest::TooLarge),
            ("99999999999999999999\n", NotLatest::TooLarge),
            ("100000000000000000000\n", NotLatest::TooLong),
        ] {
            assert_eq!(read_latest(bytes.as_bytes()), Err(why), "{bytes:?}");
        }
        assert_eq!(read_latest(b"9007199254740991\n"), Ok(Seq::MAX));
        assert_eq!(read_latest(b"0\n"), Ok(Seq::ZERO));
    }

    proptest! {
        #[test]
        fn what_is_read_is_what_was_written_byte_for_byte(bytes in prop::collection::vec(any::<u8>(), 0..30)) {
            if let Ok(seq) = read_latest(&bytes) {
                prop_assert_eq!(write_latest(seq).into_bytes(), bytes);
            }
        }

        #[test]
        fn a_number_cut_off_anywhere_is_refused(number in 0..=EXACT_MAX, cut in 0usize..17) {
            let seq = Seq::new(number).expect("in range");
            let text = write_latest(seq);
            prop_assert_eq!(read_latest(text.as_bytes()), Ok(seq));
            prop_assert!(read_latest(&text.as_bytes()[..cut.min(text.len() - 1)]).is_err());
        }
    }
}
