//! Many closures with common paths: what each contains, how large it is, and its digest.

use std::collections::HashMap;

use nixfleet_core::ids::StorePath;
use nixfleet_core::model::release::Closure;
use nixfleet_core::nix::closure::{Contents, digest_of_lines};
use nixfleet_core::nix::path_info::PathInfo;

/// A set of paths that is closed under references, in the order of their names.
///
/// Each path's line of the digest is made once, however many closures it is in.
#[derive(Debug)]
pub struct Closures {
    paths: Vec<Member>,
    places: HashMap<StorePath, usize>,
}

#[derive(Debug)]
struct Member {
    path: StorePath,
    line: String,
    nar_size: u64,
    fetch_size: u64,
    references: Vec<usize>,
}

/// A path that is referred to, or asked for, and was not told of.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("nothing is known of {0}, which is part of a closure")]
pub struct NotInClosures(pub StorePath);

impl Closures {
    /// Out of what a store says. A path that is told of twice counts once.
    pub fn new(mut infos: Vec<PathInfo>) -> Result<Self, NotInClosures> {
        infos.sort_by(|a, b| a.path.cmp(&b.path));
        infos.dedup_by(|a, b| a.path == b.path);
        let places: HashMap<StorePath, usize> =
            infos.iter().enumerate().map(|(place, info)| (info.path.clone(), place)).collect();
        let path = |info: PathInfo| {
            let PathInfo { path, nar_hash, nar_size, download_size, references, .. } = info;
            let place =
                |path: &StorePath| places.get(path).copied().ok_or_else(|| NotInClosures(path.clone()));
            let references = references.iter().map(place).collect::<Result<_, _>>()?;
            let contents = Contents { path, nar_hash, nar_size };
            let fetch_size = download_size.unwrap_or(nar_size);
            Ok(Member { line: contents.to_string(), path: contents.path, nar_size, fetch_size, references })
        };
        let paths = infos.into_iter().map(path).collect::<Result<_, _>>()?;
        Ok(Self { paths, places })
    }

    /// What the closure of `top` is.
    pub fn of(&self, top: &StorePath) -> Result<Closure, NotInClosures> {
        let members = self.members(top)?;
        let in_it = || self.paths.iter().zip(&members).filter(|(_, member)| **member).map(|(path, _)| path);
        Ok(Closure {
            digest: digest_of_lines(in_it().map(|path| &path.line)),
            fetch_bytes: in_it().fold(0, |sum, path| sum.saturating_add(path.fetch_size)),
            unpacked_bytes: in_it().fold(0, |sum, path| sum.saturating_add(path.nar_size)),
        })
    }

    /// The paths of the closure of `top`, sorted.
    pub fn paths_of(&self, top: &StorePath) -> Result<Vec<&StorePath>, NotInClosures> {
        let members = self.members(top)?;
        let in_it = self.paths.iter().zip(&members).filter(|(_, member)| **member);
        Ok(in_it.map(|(path, _)| &path.path).collect())
    }

    /// For each path whether it is in the closure of `top`.
    fn members(&self, top: &StorePath) -> Result<Vec<bool>, NotInClosures> {
        let top = *self.places.get(top).ok_or_else(|| NotInClosures(top.clone()))?;
        let mut members = vec![false; self.paths.len()];
        let mut open = vec![top];
        while let Some(place) = open.pop() {
            if !std::mem::replace(&mut members[place], true) {
                open.extend(&self.paths[place].references);
            }
        }
        Ok(members)
    }
}

#[cfg(test)]
mod tests;
