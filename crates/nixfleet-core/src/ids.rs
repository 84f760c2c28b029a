//! Names with a type each, parsed strictly once (lesson 21): a value of one of these types is always well-formed.
//!
//! Their texts are shared: a state of a host has some twenty of them and is copied with every event, so a copy must not cost
//! an allocation for each.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// Where every store path lies.
pub const STORE_DIR: &str = "/nix/store";
/// Characters of the hash part: base32 without `e`, `o`, `t` and `u`, as Nix writes it.
const HASH_CHARS: &[u8] = b"0123456789abcdfghijklmnpqrsvwxyz";
const HASH_LEN: usize = 32;
/// The longest name that Nix allows after the hash and its dash.
const NAME_LEN_MAX: usize = 211;

/// A store path: `/nix/store/<hash>-<name>`, nothing below it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct StorePath(Arc<str>);

/// Why a text is not a store path.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{got}` is not a store path: {why}")]
pub struct NotAStorePath {
    /// The text, cut to a printable length.
    pub got: String,
    /// What is wrong with it.
    pub why: &'static str,
}

impl StorePath {
    /// The whole path.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The whole path as a path.
    pub fn as_path(&self) -> &Path {
        Path::new(self.as_str())
    }

    /// `<hash>-<name>`.
    pub fn base(&self) -> &str {
        &self.0[STORE_DIR.len() + 1..]
    }

    /// The hash part, 32 characters.
    pub fn hash(&self) -> &str {
        &self.base()[..HASH_LEN]
    }

    /// The part after the hash and its dash.
    pub fn name(&self) -> &str {
        &self.base()[HASH_LEN + 1..]
    }

    /// A path below this one.
    pub fn join(&self, below: &str) -> PathBuf {
        self.as_path().join(below)
    }

    /// The store path that `path` is or lies in.
    pub fn containing(path: &Path) -> Result<Self, NotAStorePath> {
        let text = path.to_str().ok_or_else(|| refuse(&path.to_string_lossy(), "it is not UTF-8"))?;
        let below =
            text.strip_prefix("/nix/store/").ok_or_else(|| refuse(text, "it is not in /nix/store"))?;
        let base = below.split('/').next().unwrap_or(below);
        format!("{STORE_DIR}/{base}").parse()
    }
}

impl FromStr for StorePath {
    type Err = NotAStorePath;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let base = text
            .strip_prefix("/nix/store/")
            .ok_or_else(|| refuse(text, "it does not begin with /nix/store/"))?;
        let bytes = base.as_bytes();
        if bytes.len() < HASH_LEN + 2 || !bytes[..HASH_LEN].iter().all(|b| HASH_CHARS.contains(b)) {
            return Err(refuse(text, "after /nix/store/ come 32 characters of hash, a dash and a name"));
        }
        if bytes[HASH_LEN] != b'-' {
            return Err(refuse(text, "there is no dash after the 32 characters of hash"));
        }
        let name = &bytes[HASH_LEN + 1..];
        if name.len() > NAME_LEN_MAX {
            return Err(refuse(text, "its name is longer than 211 characters"));
        }
        if name.contains(&b'/') {
            return Err(refuse(text, "it is a path inside a store path; give the store path itself"));
        }
        if !name.iter().all(|b| b.is_ascii_alphanumeric() || b"+._?=-".contains(b)) {
            return Err(refuse(text, "its name has a character that Nix does not allow"));
        }
        Ok(Self(text.into()))
    }
}

fn refuse(got: &str, why: &'static str) -> NotAStorePath {
    NotAStorePath { got: got.chars().filter(|c| !c.is_control()).take(300).collect(), why }
}

impl fmt::Display for StorePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for StorePath {
    type Error = NotAStorePath;
    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<StorePath> for String {
    fn from(path: StorePath) -> Self {
        path.0.as_ref().to_owned()
    }
}

/// Names one activation on one host for ever: the units, roots and records made for it carry it.
///
/// 8 to 40 characters of `[0-9a-z-]`, so that it fits in a unit name and a file name as it is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ActivationId(Arc<str>);

/// Why a text is not an activation id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not an activation id: it has 8 to 40 characters of a-z, 0-9 and `-`")]
pub struct NotAnActivationId(String);

impl ActivationId {
    /// An id for an activation that begins at `unix_ms`, with `salt` to tell two in the same millisecond apart.
    pub fn new(unix_ms: u64, salt: u32) -> Self {
        Self(format!("{unix_ms:011x}-{salt:06x}", salt = salt & 0x00ff_ffff).into())
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ActivationId {
    type Err = NotAnActivationId;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let fits = (8..=40).contains(&text.len());
        let plain = text.bytes().all(|b| b.is_ascii_digit() || b.is_ascii_lowercase() || b == b'-');
        if fits && plain { Ok(Self(text.into())) } else { Err(NotAnActivationId(refuse(text, "").got)) }
    }
}

impl fmt::Display for ActivationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for ActivationId {
    type Error = NotAnActivationId;
    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<ActivationId> for String {
    fn from(id: ActivationId) -> Self {
        id.0.as_ref().to_owned()
    }
}

/// The kernel's id of one boot; another one means that the host was restarted in between.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct BootId(String);

impl BootId {
    /// The id from the text of `/proc/sys/kernel/random/boot_id`, or of a stand-in where containers share that one.
    pub fn new(text: &str) -> Self {
        Self(text.trim().to_owned())
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A generation of the system profile: what the boot menu shows.
///
/// Numbers are re-used after deletions (`facts/nixos.md` D6), so the number alone identifies nothing.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Generation {
    /// The number in `system-<number>-link`.
    pub number: u64,
    /// The system that it points to.
    pub system: StorePath,
}

/// SHA-256 over a closure's sorted `path narHash narSize` lines: what a release signs of the contents.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ClosureDigest(Arc<str>);

/// Why a text is not a closure digest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a closure digest: it is `sha256:` and 64 characters of 0-9 and a-f")]
pub struct NotAClosureDigest(String);

impl ClosureDigest {
    /// From the raw SHA-256.
    pub fn from_sha256(bytes: &[u8; 32]) -> Self {
        use fmt::Write;
        let mut text = String::from("sha256:");
        for byte in bytes {
            write!(text, "{byte:02x}").expect("writing to a string cannot fail");
        }
        Self(text.into())
    }
}

impl FromStr for ClosureDigest {
    type Err = NotAClosureDigest;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let hex = text.strip_prefix("sha256:").unwrap_or_default();
        let good = hex.len() == 64 && hex.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        if good { Ok(Self(text.into())) } else { Err(NotAClosureDigest(refuse(text, "").got)) }
    }
}

impl fmt::Display for ClosureDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for ClosureDigest {
    type Error = NotAClosureDigest;
    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<ClosureDigest> for String {
    fn from(digest: ClosureDigest) -> Self {
        digest.0.as_ref().to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const GOOD: &str = "/nix/store/0123456789abcdfghijklmnpqrsvwxyz-nixos-system-web-1-25.11";

    #[test]
    fn a_store_path_gives_its_parts() {
        let path: StorePath = GOOD.parse().expect("well-formed");
        assert_eq!(path.hash(), "0123456789abcdfghijklmnpqrsvwxyz");
        assert_eq!(path.name(), "nixos-system-web-1-25.11");
        assert_eq!(path.join("bin/x"), Path::new(GOOD).join("bin/x"));
        assert_eq!(StorePath::containing(&path.join("bin/x")).expect("inside"), path);
    }

    #[test]
    fn what_is_not_a_store_path_is_refused_with_a_reason() {
        let long = format!("{GOOD}{}", "x".repeat(211));
        for (bad, why) in [
            ("", "begin with"),
            ("/nix/store/", "32 characters"),
            ("/nix/store/../../etc/passwd", "32 characters"),
            ("/nix/store/0123456789abcdfghijklmnpqrsvwxyz-a/bin/sh", "inside a store path"),
            ("/nix/store/0123456789abcdfghijklmnpqrsvwxyz_a", "dash"),
            ("/nix/store/e123456789abcdfghijklmnpqrsvwxyz-a", "32 characters"),
            ("/nix/store/0123456789abcdfghijklmnpqrsvwxyz-a b", "character"),
            ("/nix/store/0123456789abcdfghijklmnpqrsvwxyz-ä", "character"),
            ("-/nix/store/0123456789abcdfghijklmnpqrsvwxyz-a", "begin with"),
            (long.as_str(), "211"),
        ] {
            let said = bad.parse::<StorePath>().expect_err(bad).to_string();
            assert!(said.contains(why), "{bad}: {said}");
        }
    }

    #[test]
    fn an_id_sorts_by_time_and_reads_back() {
        let (older, newer) =
            (ActivationId::new(1_795_000_000_000, 9), ActivationId::new(1_795_000_000_001, 1));
        assert!(older < newer);
        assert_eq!(older.as_str().parse::<ActivationId>().expect("its own form"), older);
        assert!("../../x".parse::<ActivationId>().is_err());
        assert!("a; rm -rf".parse::<ActivationId>().is_err());
    }

    proptest! {
        #[test]
        fn a_store_path_never_leaves_the_store(text in "\\PC*") {
            if let Ok(path) = text.parse::<StorePath>() {
                prop_assert!(path.as_str().starts_with("/nix/store/"));
                prop_assert!(!path.base().contains('/'));
            }
        }

        #[test]
        fn every_well_formed_path_reads_back(hash in "[0-9a-df-np-sv-z]{32}", name in "[A-Za-z0-9+._?=-]{1,211}") {
            let text = format!("/nix/store/{hash}-{name}");
            let path: StorePath = text.parse().expect("built from the grammar");
            prop_assert_eq!((path.hash(), path.name(), path.as_str()), (hash.as_str(), name.as_str(), text.as_str()));
        }
    }
}
