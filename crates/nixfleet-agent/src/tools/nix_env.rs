//! `nix-env --set`, and the generations of a profile, which are plain links and need no program to be read.
//!
//! `--set` takes no lock of its own (`facts/nixos.md` D6): the caller holds ours. `--rollback` is never used: it goes
//! to the next lower number, not to what ran before.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nixfleet_core::ids::{Generation, StorePath};
use nixfleet_sys::exec::{Cmd, Finished};

use super::{ToolError, Tools};

/// Generations read: NixOS boots slowly with a few hundred, so this is a broken folder and not a long life.
const GENERATIONS_MAX: usize = 10_000;

/// `nix-env --profile PROFILE --set PATH`: makes the path the profile's current generation.
pub fn set(tools: &Tools, profile: &Path, path: &StorePath) -> Cmd {
    tools
        .nix_command(&tools.nix_env)
        .arg("--profile")
        .arg(profile)
        .arg("--set")
        .arg(path.as_str())
        .args(tools.nix_option_args())
        .deadline(Duration::from_mins(2))
}

/// The generations of a profile.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Generations {
    /// The one that the profile points to; none where there is no profile yet.
    pub current: Option<Generation>,
    /// All of them, by number.
    pub all: Vec<Generation>,
    /// Links that look like generations and do not point to a store path.
    pub odd: Vec<PathBuf>,
}

/// Why a profile could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ProfileError {
    /// The folder or a link cannot be read.
    #[error("cannot read `{}`", path.display())]
    Read {
        /// The folder or link.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The profile points to something that is not one of its generations.
    #[error("profile `{}` points to `{}`, which is not one of its generations", profile.display(), target.display())]
    NoGeneration {
        /// The profile.
        profile: PathBuf,
        /// Where it points to.
        target: PathBuf,
    },
    /// The folder has more links than a profile can have.
    #[error("profile `{}` has more than {GENERATIONS_MAX} generations", .0.display())]
    TooMany(PathBuf),
}

/// The generations of `profile`, read from the links beside it.
pub fn read_generations(profile: &Path) -> Result<Generations, ProfileError> {
    let (folder, name) = folder_and_name(profile)?;
    let mut found = Generations::default();
    let entries = match folder.read_dir() {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(found),
        Err(source) => return Err(ProfileError::Read { path: folder.to_owned(), source }),
    };
    for entry in entries {
        let entry = entry.map_err(|source| ProfileError::Read { path: folder.to_owned(), source })?;
        let Some(number) = entry.file_name().to_str().and_then(|file| number_of(file, name)) else {
            continue;
        };
        if found.all.len() + found.odd.len() >= GENERATIONS_MAX {
            return Err(ProfileError::TooMany(profile.to_owned()));
        }
        match system_at(&entry.path())? {
            Link::System(system) => found.all.push(Generation { number, system }),
            Link::Odd => found.odd.push(entry.path()),
            // Deleted since the folder was listed.
            Link::Gone => {}
        }
    }
    found.all.sort_by_key(|generation| generation.number);
    found.odd.sort();
    found.current = current(profile, folder, name)?;
    Ok(found)
}

fn folder_and_name(profile: &Path) -> Result<(&Path, &str), ProfileError> {
    let name = profile.file_name().and_then(|name| name.to_str());
    profile.parent().zip(name).ok_or_else(|| ProfileError::Read {
        path: profile.to_owned(),
        source: io::Error::from(io::ErrorKind::InvalidFilename),
    })
}

/// `N` of `NAME-N-link`, written as Nix writes it.
fn number_of(file: &str, name: &str) -> Option<u64> {
    let digits = file.strip_prefix(name)?.strip_prefix('-')?.strip_suffix("-link")?;
    let plain = digits.bytes().all(|b| b.is_ascii_digit()) && (digits == "0" || !digits.starts_with('0'));
    if plain { digits.parse().ok() } else { None }
}

enum Link {
    System(StorePath),
    Odd,
    Gone,
}

fn system_at(link: &Path) -> Result<Link, ProfileError> {
    match link.read_link() {
        Ok(target) => Ok(target.to_str().and_then(|text| text.parse().ok()).map_or(Link::Odd, Link::System)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Link::Gone),
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => Ok(Link::Odd),
        Err(source) => Err(ProfileError::Read { path: link.to_owned(), source }),
    }
}

fn current(profile: &Path, folder: &Path, name: &str) -> Result<Option<Generation>, ProfileError> {
    let target = match profile.read_link() {
        Ok(target) => target,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(ProfileError::Read { path: profile.to_owned(), source }),
    };
    let beside = target.parent() == Some(Path::new("")) || target.parent() == Some(folder);
    let number = target.file_name().and_then(|file| number_of(file.to_str()?, name)).filter(|_| beside);
    let link = folder.join(target.file_name().unwrap_or_default());
    match (number, system_at(&link)?) {
        (Some(number), Link::System(system)) => Ok(Some(Generation { number, system })),
        (Some(_), Link::Odd | Link::Gone) | (None, _) => {
            Err(ProfileError::NoGeneration { profile: profile.to_owned(), target })
        }
    }
}

impl Tools {
    /// Makes the path the current generation of the profile.
    pub async fn set_profile(&self, profile: &Path, path: &StorePath) -> Result<(), ToolError> {
        set(self, profile, path).run().await.and_then(Finished::success).map_err(ToolError::Exec)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
