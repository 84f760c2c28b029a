//! `state.json`: what the agent must remember, written before anything is done because of it.
//!
//! The host's state and what it trusts are one file, so that no crash can leave a release without the floor that came
//! with it. It is replaced as a whole, synced. A file that is there and cannot be read, or that a newer program wrote, is an
//! error that stops activation; only a file that is not there is a fresh host (lesson 17).
//!
//! A file of zeros beside it is given up when the disk is full, so that a way back can still be written down.

use std::path::{Path, PathBuf};

use nixfleet_core::host::HostState;
use nixfleet_core::host::saved::{SavedState, StateUnreadable};
use nixfleet_sys::fs::{self, FsError};
use nixfleet_trust::trust::{SavedTrust, SavedUnreadable};
use serde::{Deserialize, Serialize};

/// The format that this program writes; it reads this one and every older one.
pub const FILE_FORMAT: u32 = 1;
/// Some hundred times what a state takes: releases of three sizes at most, each with its probes and windows.
const BYTES_MAX: u64 = 8 << 20;
/// What is given up when the disk is full: room for two states with their terms.
const RESERVE_BYTES: usize = 128 << 10;

/// What the agent remembers.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Saved {
    /// Where the host stands.
    pub host: HostState,
    /// What it trusts; `None` before anything was accepted beyond its configuration.
    pub trust: Option<SavedTrust>,
}

/// Why there is no state to go on from. Nothing is started until a person has looked.
#[derive(Debug, thiserror::Error)]
pub enum StateFileError {
    /// The file could not be read or written.
    #[error(transparent)]
    File(#[from] FsError),
    /// A newer program wrote it.
    #[error("the state file `{}` has format {format}, newer than this agent's {FILE_FORMAT}", path.display())]
    Newer {
        /// The file.
        path: PathBuf,
        /// The format found.
        format: u32,
    },
    /// It is torn, or something else.
    #[error("the state file `{}` is damaged", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// Where and how.
        source: serde_json::Error,
    },
    /// The host's part of it cannot be read.
    #[error("the host's state in `{}` cannot be read", path.display())]
    Host {
        /// The file.
        path: PathBuf,
        /// Why.
        source: StateUnreadable,
    },
    /// What the host trusts cannot be read.
    #[error("the trust state in `{}` cannot be read", path.display())]
    Trust {
        /// The file.
        path: PathBuf,
        /// Why.
        source: SavedUnreadable,
    },
}

impl StateFileError {
    /// Whether only a person, or another program, changes it.
    pub fn is_lasting(&self) -> bool {
        match self {
            Self::File(error) => !error.may_pass(),
            Self::Newer { .. } | Self::Json { .. } | Self::Host { .. } | Self::Trust { .. } => true,
        }
    }

    /// What a person can do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::File(_) => "look at the file and its folder; nothing is switched until it can be read",
            Self::Newer { .. } => "this agent is older than the one that wrote it: run that one",
            Self::Json { .. } | Self::Host { .. } | Self::Trust { .. } => {
                "nothing is switched until a person has looked; a host that is to begin anew needs the file moved away, \
                 and then accepts any release that its root allows"
            }
        }
    }
}

/// The state file of one state folder.
#[derive(Debug, Clone)]
pub struct StateFile {
    path: PathBuf,
    reserve: PathBuf,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields, bound(deserialize = "H: Deserialize<'de>, T: Deserialize<'de>"))]
struct Format1<H, T> {
    format: u32,
    host: H,
    /// `null` before anything was accepted. Left out it is an error: that would read as "no floor" (lesson 17).
    #[serde(deserialize_with = "Option::deserialize")]
    trust: Option<T>,
}

impl StateFile {
    /// The file in this folder.
    pub fn in_folder(state: &Path) -> Self {
        Self { path: state.join("state.json"), reserve: state.join("state.reserve") }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What was saved; `None` only when there is no file.
    pub fn read(&self) -> Result<Option<Saved>, StateFileError> {
        match fs::read_bounded(&self.path, BYTES_MAX) {
            Ok(bytes) => self.parse(&bytes).map(Some),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// The state in the bytes of a file; an error names this one.
    pub fn parse(&self, bytes: &[u8]) -> Result<Saved, StateFileError> {
        /// What every format will have, so that a newer one is told from a torn one.
        #[derive(Deserialize)]
        struct AnyFormat {
            format: u32,
        }
        let path = || self.path.clone();
        let json = |source| StateFileError::Json { path: path(), source };
        let AnyFormat { format } = serde_json::from_slice(bytes).map_err(json)?;
        if format > FILE_FORMAT {
            return Err(StateFileError::Newer { path: path(), format });
        }
        let Format1::<serde_json::Value, serde_json::Value> { format: _, host, trust } =
            serde_json::from_slice(bytes).map_err(json)?;
        let SavedState(host) =
            SavedState::try_from(host).map_err(|source| StateFileError::Host { path: path(), source })?;
        let trust = trust.map(|trust| {
            let bytes = serde_json::to_vec(&trust).map_err(json)?;
            SavedTrust::from_bytes(&bytes).map_err(|source| StateFileError::Trust { path: path(), source })
        });
        Ok(Saved { host, trust: trust.transpose()? })
    }

    /// Replaces the file; when this returns, a power cut finds the new one.
    pub fn save(&self, saved: &Saved) -> Result<(), FsError> {
        let bytes = render(saved);
        match fs::write_atomic(&self.path, &bytes) {
            Err(error) if error.is_no_space() && self.reserve.exists() => {
                fs::remove(&self.reserve)?;
                fs::write_atomic(&self.path, &bytes)
            }
            written => written,
        }
    }

    /// Keeps some room for a disk that is full later; without it things go on.
    pub fn keep_reserve(&self) {
        let size = std::fs::metadata(&self.reserve).map_or(0, |meta| meta.len());
        if size < RESERVE_BYTES as u64 {
            let _ = fs::write_atomic(&self.reserve, &vec![0; RESERVE_BYTES]);
        }
    }
}

fn render(saved: &Saved) -> Vec<u8> {
    let Saved { host, trust } = saved;
    let file = Format1 { format: FILE_FORMAT, host: SavedState(host.clone()), trust: trust.as_ref() };
    let mut bytes = serde_json::to_vec_pretty(&file).expect("texts and numbers are always JSON");
    bytes.push(b'\n');
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder() -> (tempfile::TempDir, StateFile) {
        let dir = tempfile::tempdir().expect("a folder");
        let file = StateFile::in_folder(dir.path());
        (dir, file)
    }

    fn write(file: &StateFile, bytes: &[u8]) {
        fs::write_atomic(file.path(), bytes).expect("written");
    }

    #[test]
    fn no_file_is_a_fresh_host_and_what_was_saved_comes_back() {
        let (_dir, file) = folder();
        assert_eq!(file.read().expect("no error"), None);
        let mut saved = Saved::default();
        saved.host.seq = 7;
        file.save(&saved).expect("saved");
        assert_eq!(file.read().expect("readable"), Some(saved));
    }

    #[test]
    fn a_file_cut_off_anywhere_is_an_error_and_never_a_fresh_host() {
        let (_dir, file) = folder();
        let whole = render(&Saved::default());
        // Without its last newline it is still whole.
        for cut in 0..whole.len() - 1 {
            assert!(matches!(file.parse(&whole[..cut]), Err(StateFileError::Json { .. })), "cut at {cut}");
        }
        write(&file, b"");
        assert!(matches!(file.read(), Err(StateFileError::Json { .. })), "an empty file is no missing file");
    }

    #[test]
    fn a_newer_file_or_part_is_told_from_a_torn_one() {
        let (_dir, file) = folder();
        write(&file, br#"{"format":2,"what":"nobody knows"}"#);
        assert!(matches!(file.read(), Err(StateFileError::Newer { format: 2, .. })));
        write(&file, br#"{"format":1,"host":{"format":99},"trust":null}"#);
        let said = file.read().expect_err("the host's part is newer");
        let newer = StateUnreadable::Newer(99);
        assert!(
            matches!(&said, StateFileError::Host { source, .. } if source.to_string() == newer.to_string())
        );
    }

    #[test]
    fn a_file_that_says_nothing_of_trust_is_an_error_and_never_no_floor() {
        let (_dir, file) = folder();
        let mut without: serde_json::Value =
            serde_json::from_slice(&render(&Saved::default())).expect("JSON");
        without.as_object_mut().expect("an object").remove("trust").expect("it was there");
        write(&file, without.to_string().as_bytes());
        assert!(matches!(file.read(), Err(StateFileError::Json { .. })));
    }

    #[test]
    fn an_altered_trust_state_is_an_error() {
        let (_dir, file) = folder();
        let fresh = String::from_utf8(render(&Saved::default())).expect("text");
        let altered =
            fresh.replace("\"trust\": null", "\"trust\": {\"trust\":{\"format\":1},\"sum\":\"00\"}");
        assert_ne!(fresh, altered);
        write(&file, altered.as_bytes());
        assert!(matches!(file.read(), Err(StateFileError::Trust { .. })));
    }
}
