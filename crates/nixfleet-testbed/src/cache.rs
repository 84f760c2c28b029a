//! The binary cache of one host (or of a network), and the ways to damage it.
//!
//! What is served is an overlay over the image's cache, so damage is written to this host's copy only.

use std::fs;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result, bail};

use crate::fault::{Fault, FaultServer};
use crate::image::Image;
use crate::keeper::Keeper;
use crate::run_dir::RunDir;

/// A way to damage what the cache has for one path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Damage {
    /// No signature.
    Unsigned,
    /// A good signature by a key that the host does not trust (`other-cache-1`).
    OtherKey,
    /// A signature under the trusted key's name by a key of other bytes.
    Impostor,
    /// `NarHash` is that of something else, the signature stays.
    AlteredNarHash,
    /// `References` has one path less (or itself more), the signature stays.
    AlteredReferences,
    /// One byte in the middle of the archive differs.
    AlteredArchive,
    /// The archive ends half-way.
    TruncatedArchive,
    /// The archive is not there, the narinfo is.
    MissingArchive,
    /// Neither is there.
    Absent,
    /// Other contents under the same name with a good signature by the trusted key, as somebody who has stolen it would
    /// serve them: only of [`System::Good`], whose `activate` then makes `/var/log/stolen`. Nix has nothing against them.
    ///
    /// [`System::Good`]: crate::System::Good
    OtherContents,
}

impl Damage {
    /// All of them.
    pub const ALL: &[Self] = &[
        Self::Unsigned,
        Self::OtherKey,
        Self::Impostor,
        Self::AlteredNarHash,
        Self::AlteredReferences,
        Self::AlteredArchive,
        Self::TruncatedArchive,
        Self::MissingArchive,
        Self::Absent,
        Self::OtherContents,
    ];
}

/// The served cache of a host or network.
#[derive(Debug)]
pub struct Cache<'a> {
    keeper: &'a Keeper,
    run: &'a RunDir,
    image: &'a Image,
    faults: &'a Mutex<Option<FaultServer>>,
}

impl<'a> Cache<'a> {
    pub(crate) fn new(
        keeper: &'a Keeper,
        run: &'a RunDir,
        image: &'a Image,
        faults: &'a Mutex<Option<FaultServer>>,
    ) -> Self {
        Self { keeper, run, image, faults }
    }

    /// The address that hosts have in their nix.conf.
    pub fn url(&self) -> &'static str {
        "http://10.213.0.1:8080"
    }

    /// Where the served files are, seen from here; whatever is written there is served, by this cache only.
    pub fn folder(&self) -> PathBuf {
        self.keeper.outside(&self.run.path.join("cache"))
    }

    /// The narinfo of a store path as it is served.
    pub fn narinfo(&self, path: &str) -> Result<String> {
        let file = self.narinfo_file(path)?;
        fs::read_to_string(&file).with_context(|| format!("read {}", file.display()))
    }

    /// Replaces the narinfo of a store path.
    pub fn set_narinfo(&self, path: &str, text: &str) -> Result<()> {
        crate::files::put(&self.narinfo_file(path)?, text.as_bytes(), 0o644)
    }

    /// Damages what is served for one store path.
    pub fn damage(&self, path: &str, damage: Damage) -> Result<()> {
        match damage {
            Damage::Unsigned => self.edit(path, |line| (!line.starts_with("Sig: ")).then(|| line.to_owned())),
            Damage::OtherKey => self.signed_by("other", path),
            Damage::Impostor => self.signed_by("impostor", path),
            Damage::AlteredNarHash => self.edit(path, |line| Some(other_hash(line))),
            Damage::AlteredReferences => {
                let own = path.trim_start_matches("/nix/store/").to_owned();
                self.edit(path, |line| Some(other_references(line, &own)))
            }
            Damage::AlteredArchive => self.edit_archive(path, |bytes| {
                let middle = bytes.len() / 2;
                bytes[middle] ^= 0xff;
            }),
            Damage::TruncatedArchive => self.edit_archive(path, |bytes| bytes.truncate(bytes.len() / 2)),
            Damage::MissingArchive => remove(&self.archive_file(path)?),
            Damage::Absent => {
                remove(&self.archive_file(path)?)?;
                remove(&self.narinfo_file(path)?)
            }
            Damage::OtherContents => {
                self.signed_by("thief", path)?;
                let archive = archive_name(&self.narinfo(path)?)?;
                let file = self.signed("thief").join(&archive);
                let bytes = fs::read(&file).with_context(|| format!("read {}", file.display()))?;
                crate::files::put(&self.folder().join(archive), &bytes, 0o644)
            }
        }
    }

    /// Undoes every damage to one store path.
    pub fn repair(&self, path: &str) -> Result<()> {
        let original = self.image.cache().join(narinfo_name(path)?);
        let text = fs::read_to_string(&original).with_context(|| format!("read {}", original.display()))?;
        self.set_narinfo(path, &text)?;
        let archive = archive_name(&text)?;
        let bytes = fs::read(self.image.cache().join(&archive)).context("read an archive")?;
        crate::files::put(&self.folder().join(archive), &bytes, 0o644)
    }

    /// Stops serving: connections are refused.
    pub fn down(&self) -> Result<()> {
        *self.faults() = None;
        self.keeper.command("cache-down")
    }

    /// Serves well again, also after [`Cache::serve_fault`].
    pub fn up(&self) -> Result<()> {
        *self.faults() = None;
        self.keeper.command("cache-up")
    }

    /// Puts a server that misbehaves in this way in the place of the good one.
    pub fn serve_fault(&self, fault: Fault) -> Result<()> {
        self.down()?;
        let namespace = PathBuf::from(format!("/proc/{}/ns/net", self.keeper.pid()));
        *self.faults() = Some(FaultServer::start(&namespace, 8080, &self.folder(), fault)?);
        Ok(())
    }

    fn faults(&self) -> std::sync::MutexGuard<'_, Option<FaultServer>> {
        self.faults.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn narinfo_file(&self, path: &str) -> Result<PathBuf> {
        Ok(self.folder().join(narinfo_name(path)?))
    }

    fn archive_file(&self, path: &str) -> Result<PathBuf> {
        Ok(self.folder().join(archive_name(&self.narinfo(path)?)?))
    }

    /// What real Nix signed for somebody else than the cache's owner, when the image was made.
    fn signed(&self, by: &str) -> PathBuf {
        self.image.cache().with_file_name(format!("signed-{by}"))
    }

    /// Has the narinfo that was [`Cache::signed`] by somebody else.
    fn signed_by(&self, by: &str, path: &str) -> Result<()> {
        let file = self.signed(by).join(narinfo_name(path)?);
        let text = fs::read_to_string(&file).with_context(|| format!("read {}", file.display()))?;
        self.set_narinfo(path, &text)
    }

    fn edit(&self, path: &str, line: impl FnMut(&str) -> Option<String>) -> Result<()> {
        let before = self.narinfo(path)?;
        let after: String = before.lines().filter_map(line).map(|line| line + "\n").collect();
        if before == after {
            bail!("the narinfo of {path} is not changed by this damage");
        }
        self.set_narinfo(path, &after)
    }

    fn edit_archive(&self, path: &str, change: impl FnOnce(&mut Vec<u8>)) -> Result<()> {
        let file = self.archive_file(path)?;
        let mut bytes = fs::read(&file).with_context(|| format!("read {}", file.display()))?;
        change(&mut bytes);
        crate::files::put(&file, &bytes, 0o644)
    }
}

fn remove(file: &std::path::Path) -> Result<()> {
    fs::remove_file(file).with_context(|| format!("remove {}", file.display()))
}

fn narinfo_name(path: &str) -> Result<String> {
    let name = path.strip_prefix("/nix/store/").with_context(|| format!("`{path}` is no store path"))?;
    let (hash, _) = name.split_once('-').with_context(|| format!("`{path}` is no store path"))?;
    Ok(format!("{hash}.narinfo"))
}

fn archive_name(narinfo: &str) -> Result<String> {
    let url = narinfo.lines().find_map(|line| line.strip_prefix("URL: "));
    Ok(url.context("a narinfo without URL")?.to_owned())
}

/// One character in the middle of the hash differs; it stays a well-formed hash.
fn other_hash(line: &str) -> String {
    let Some(hash) = line.strip_prefix("NarHash: ") else { return line.to_owned() };
    let middle = hash.len() - 20;
    let other = if &hash[middle..=middle] == "0" { "1" } else { "0" };
    format!("NarHash: {}{other}{}", &hash[..middle], &hash[middle + 1..])
}

fn other_references(line: &str, own: &str) -> String {
    let Some(references) = line.strip_prefix("References:") else { return line.to_owned() };
    let names: Vec<_> = references.split_whitespace().collect();
    match names.split_first() {
        Some((_, rest)) => format!("References: {}", rest.join(" ")),
        None => format!("References: {own}"),
    }
}
