//! Names with a type each. All are safe as a file name, a URL segment and part of a unit name as they are. Their texts are
//! shared, so that copies of hosts and plans are cheap.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// The largest number that every JSON reader reads exactly: 2^53 - 1.
pub const EXACT_MAX: u64 = (1 << 53) - 1;

/// Why a text is not a name of the kind that was wanted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{got}` is not a {kind}: {why}")]
pub struct NotAName {
    /// What was wanted.
    pub kind: &'static str,
    /// The text, cut to a printable length.
    pub got: String,
    /// What is wrong with it.
    pub why: &'static str,
}

/// The one grammar of names: it begins with a letter or digit, goes on with these and `.`, `_`, `-`, and ends with
/// neither a dot nor a dash. Small letters only, since some file systems do not tell them from capitals.
fn check(kind: &'static str, text: &str, len_max: usize) -> Result<(), NotAName> {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = text.as_bytes();
    let why = if bytes.is_empty() {
        "it is empty"
    } else if bytes.len() > len_max {
        "it is too long"
    } else if !bytes.iter().all(|&byte| plain(byte) || b"._-".contains(&byte)) {
        "it has a character other than a-z, 0-9, `.`, `_` and `-`"
    } else if !plain(bytes[0]) {
        "it does not begin with a letter or a digit"
    } else if matches!(bytes.last(), Some(b'.' | b'-')) {
        "it ends with a dot or a dash"
    } else if text.contains("..") {
        "it has two dots in a row"
    } else {
        return Ok(());
    };
    Err(NotAName { kind, got: printable(text), why })
}

/// At most 100 characters without control characters: what an error may show of a foreign text.
pub(super) fn printable(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(100).collect()
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $kind:literal, $len_max:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Arc<str>);

        impl $name {
            /// The longest that is accepted, in bytes.
            pub const LEN_MAX: usize = $len_max;

            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = NotAName;
            fn from_str(text: &str) -> Result<Self, NotAName> {
                check($kind, text, Self::LEN_MAX)?;
                Ok(Self(text.into()))
            }
        }

        impl TryFrom<String> for $name {
            type Error = NotAName;
            fn try_from(text: String) -> Result<Self, NotAName> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.0.as_ref().to_owned()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

name!(
    /// Names a fleet for ever; every signed document carries it, so that none counts in another fleet.
    FleetId,
    "fleet id",
    64
);
name!(
    /// Names a channel: a line of releases that a host follows.
    ChannelName,
    "channel name",
    64
);
name!(
    /// Names a host within its fleet. It need not be the host's name in the network.
    HostName,
    "host name",
    128
);
name!(
    /// A word that selectors choose hosts by.
    Tag,
    "tag",
    64
);
name!(
    /// Names a wave of a rollout, for people.
    WaveName,
    "wave name",
    64
);
name!(
    /// Names a probe within its host.
    ProbeName,
    "probe name",
    64
);

/// What numbers with a type have in common: they are read and written as plain ones.
macro_rules! number {
    ($name:ident, $refused:ident) => {
        impl TryFrom<u64> for $name {
            type Error = $refused;
            fn try_from(number: u64) -> Result<Self, $refused> {
                Self::new(number)
            }
        }

        impl From<$name> for u64 {
            fn from(number: $name) -> Self {
                number.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

/// The number of a release in its channel; it only goes up (lesson 18).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u64", into = "u64")]
pub struct Seq(u64);

/// Why a number is not a sequence number.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0} is not a sequence number: the largest is {EXACT_MAX}")]
pub struct NotASeq(pub u64);

impl Seq {
    /// Before the first release.
    pub const ZERO: Self = Self(0);
    /// The last one there can be.
    pub const MAX: Self = Self(EXACT_MAX);

    /// The number `value`.
    pub fn new(value: u64) -> Result<Self, NotASeq> {
        if value > EXACT_MAX { Err(NotASeq(value)) } else { Ok(Self(value)) }
    }

    /// The number.
    pub fn get(self) -> u64 {
        self.0
    }

    /// The number after this one; `None` after the last.
    pub fn next(self) -> Option<Self> {
        Self::new(self.0 + 1).ok()
    }
}

number!(Seq, NotASeq);

/// The number of a root; it goes up by one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u64", into = "u64")]
pub struct RootVersion(u64);

/// Why a number is not that of a root.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0} is not the version of a root: it is 1 to {EXACT_MAX}")]
pub struct NotARootVersion(pub u64);

impl RootVersion {
    /// The first.
    pub const FIRST: Self = Self(1);

    /// The version `number`.
    pub fn new(number: u64) -> Result<Self, NotARootVersion> {
        if (1..=EXACT_MAX).contains(&number) { Ok(Self(number)) } else { Err(NotARootVersion(number)) }
    }

    /// The number.
    pub fn get(self) -> u64 {
        self.0
    }

    /// The one after it; `None` after the last.
    pub fn next(self) -> Option<Self> {
        Self::new(self.0 + 1).ok()
    }
}

number!(RootVersion, NotARootVersion);

/// SHA-256 over the signed bytes of a document: `sha256:` and 64 characters of hex.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Sha256([u8; 32]);

/// Why a text is not a SHA-256.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a SHA-256: it is `sha256:` and 64 characters of 0-9 and a-f")]
pub struct NotASha256(String);

impl Sha256 {
    /// From the raw bytes.
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The raw bytes.
    pub fn bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl FromStr for Sha256 {
    type Err = NotASha256;
    fn from_str(text: &str) -> Result<Self, NotASha256> {
        let refused = || NotASha256(printable(text));
        let hex = text.strip_prefix("sha256:").ok_or_else(refused)?.as_bytes();
        if hex.len() != 64 {
            return Err(refused());
        }
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(hex.chunks_exact(2)) {
            let (high, low) = (digit(pair[0]).ok_or_else(refused)?, digit(pair[1]).ok_or_else(refused)?);
            *byte = high << 4 | low;
        }
        Ok(Self(bytes))
    }
}

fn digit(hex: u8) -> Option<u8> {
    match hex {
        b'0'..=b'9' => Some(hex - b'0'),
        b'a'..=b'f' => Some(hex - b'a' + 10),
        _ => None,
    }
}

impl fmt::Display for Sha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("sha256:")?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Sha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl TryFrom<String> for Sha256 {
    type Error = NotASha256;
    fn try_from(text: String) -> Result<Self, NotASha256> {
        text.parse()
    }
}

impl From<Sha256> for String {
    fn from(digest: Sha256) -> Self {
        digest.to_string()
    }
}

/// Names one release exactly: the same channel and number with another digest is another release, and an attack.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReleaseId {
    /// The channel.
    pub channel: ChannelName,
    /// Its number in the channel.
    pub seq: Seq,
    /// The digest of its signed bytes.
    pub digest: Sha256,
}

impl fmt::Display for ReleaseId {
    /// `channel/seq`: what people call it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { channel, seq, digest: _ } = self;
        write!(f, "{channel}/{seq}")
    }
}

/// A host's public key as one line of OpenSSH's form without the comment: the type, a space, base64.
///
/// Only the form is checked here; `nixfleet-trust` reads the key itself.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct HostKey(String);

/// The key types that a host may have; keys that need a touch are for people.
const HOST_KEY_TYPES: [&str; 2] = ["ssh-ed25519", "ecdsa-sha2-nistp256"];
/// A P-256 key has 140 characters of base64; nothing that a host may have is longer than this.
const HOST_KEY_LEN_MAX: usize = 200;

impl HostKey {
    /// The line.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for HostKey {
    type Err = NotAName;
    fn from_str(text: &str) -> Result<Self, NotAName> {
        let refused = |why| NotAName { kind: "host key", got: printable(text), why };
        let (kind, blob) = text.split_once(' ').unwrap_or((text, ""));
        let base64 = |byte: u8| byte.is_ascii_alphanumeric() || b"+/=".contains(&byte);
        if !HOST_KEY_TYPES.contains(&kind) {
            return Err(refused("it does not begin with `ssh-ed25519 ` or `ecdsa-sha2-nistp256 `"));
        }
        if blob.is_empty() || text.len() > HOST_KEY_LEN_MAX || !blob.bytes().all(base64) {
            return Err(refused("after the type comes one word of base64, and no comment"));
        }
        Ok(Self(text.to_owned()))
    }
}

impl TryFrom<String> for HostKey {
    type Error = NotAName;
    fn try_from(text: String) -> Result<Self, NotAName> {
        text.parse()
    }
}

impl From<HostKey> for String {
    fn from(key: HostKey) -> Self {
        key.0
    }
}

impl fmt::Display for HostKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
