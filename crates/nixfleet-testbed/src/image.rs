//! What is made once and kept: the roots, the stores they are built in, and the prepared layers.
//!
//! Three levels, each keyed by what goes into it: `root-*` (mmdebstrap, half a minute), `store-*` (the builder's
//! /nix and the master cache, kept between agents), `prepared-*` (layer, cache and keys for one agent, seconds).

use std::collections::{BTreeMap, HashMap};
use std::env;
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use rustix::fs::FlockOperation;

use crate::packages::available;
use crate::run_dir::lock;
use crate::spawn;
use crate::systems::System;

/// Debian packages of a host's root.
const ROOT_PACKAGES: &str =
    "systemd,systemd-sysv,dbus,nix-bin,busybox-static,ca-certificates,curl,iproute2,kmod,procps";
/// mmdebstrap takes about 25 s; a slow mirror may take minutes.
const ROOT_LIMIT: Duration = Duration::from_mins(15);
/// Preparing takes about 8 s when nothing is there yet.
const PREPARE_LIMIT: Duration = Duration::from_mins(10);
/// Prepared layers kept per flavour, the one in use included (about 20 MB each, and the agent's size): several checkouts of
/// one machine, each with two builds of its agent.
const PREPARED_KEPT: usize = 12;
/// Hexadecimal digits of a SHA-256.
const SUM_LENGTH: usize = 64;
/// Agents after which the builder's store is made anew, so that it does not grow for ever.
const STORE_USES_MAX: u64 = 40;

/// The files that a prepared layer is made from.
const ASSETS: &[(&str, &str)] = &[
    ("bootloader.sh", include_str!("../assets/bootloader.sh")),
    ("etc.pl", include_str!("../assets/etc.pl")),
    ("keeper.sh", include_str!("../assets/keeper.sh")),
    ("precheck.sh", include_str!("../assets/precheck.sh")),
    ("prepare.sh", include_str!("../assets/prepare.sh")),
    ("stage2.sh", include_str!("../assets/stage2.sh")),
    ("switch.sh", include_str!("../assets/switch.sh")),
    ("systems.nix", include_str!("../assets/systems.nix")),
    ("users.pl", include_str!("../assets/users.pl")),
];

/// Which Debian, and with it which Nix and which systemd, a host runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Flavour {
    /// Debian 13: Nix 2.26, systemd 257.
    Trixie,
    /// Debian 12: Nix 2.8, systemd 252.
    Bookworm,
}

impl Flavour {
    /// Both.
    pub const ALL: &[Self] = &[Self::Trixie, Self::Bookworm];

    /// Debian's name of it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Trixie => "trixie",
            Self::Bookworm => "bookworm",
        }
    }

    /// The flavour of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|flavour| flavour.name() == name)
    }
}

/// Where images are kept and hosts run: `NIXFLEET_TESTBED_CACHE`, else `/var/cache/nixfleet-testbed`.
pub fn cache_dir() -> PathBuf {
    env::var_os("NIXFLEET_TESTBED_CACHE").map_or_else(|| "/var/cache/nixfleet-testbed".into(), PathBuf::from)
}

/// A prepared flavour: what hosts boot from, with the agent that `NIXFLEET_AGENT_BIN` names.
#[derive(Debug)]
pub struct Image {
    flavour: Flavour,
    root: PathBuf,
    prepared: PathBuf,
    systems: BTreeMap<String, String>,
    /// Keeps others from pruning it.
    _in_use: File,
}

impl Image {
    /// The image of a flavour; made if it is not there (a first time takes about half a minute).
    pub fn get(flavour: Flavour) -> Result<Arc<Self>> {
        static KNOWN: OnceLock<Mutex<HashMap<Flavour, Arc<Image>>>> = OnceLock::new();
        let known = KNOWN.get_or_init(Mutex::default);
        let mut known = known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(image) = known.get(&flavour) {
            return Ok(Arc::clone(image));
        }
        let image = Arc::new(prepare(flavour, &mut |_| {})?);
        known.insert(flavour, Arc::clone(&image));
        Ok(image)
    }

    /// Which flavour this is.
    pub fn flavour(&self) -> Flavour {
        self.flavour
    }

    /// The store path of a system.
    pub fn system(&self, system: System) -> &str {
        self.systems.get(system.name()).map_or_else(|| missing_system(system), String::as_str)
    }

    /// The Debian root.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The layer with base system, profile and links that lies on the root.
    pub fn layer(&self) -> PathBuf {
        self.prepared.join("layer")
    }

    /// The signed binary cache, not to be written to: each host serves a copy of its own.
    pub fn cache(&self) -> PathBuf {
        self.prepared.join("cache")
    }

    /// The secret key files: `signing.sec` (trusted), `other.sec`, `impostor.sec` (the trusted name, other bytes).
    pub fn keys(&self) -> PathBuf {
        self.prepared.join("keys")
    }

    /// The public key that hosts trust, `test-cache-1:…`.
    pub fn public_key(&self) -> Result<String> {
        let path = self.keys().join("signing.pub");
        Ok(fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?.trim().to_owned())
    }

    /// The script that owns a host.
    pub(crate) fn keeper_script(&self) -> PathBuf {
        self.prepared.join("assets/keeper.sh")
    }

    fn open(flavour: Flavour, root: PathBuf, prepared: PathBuf) -> Result<Self> {
        let in_use = lock(&prepared.join("in-use"), FlockOperation::LockShared)?;
        let list = fs::read_to_string(prepared.join("systems")).context("read the list of systems")?;
        let systems: BTreeMap<_, _> = list
            .lines()
            .filter_map(|line| line.split_once(' '))
            .map(|(name, path)| (name.to_owned(), path.to_owned()))
            .collect();
        if let Some(lost) = System::ALL.iter().find(|system| !systems.contains_key(system.name())) {
            bail!("systems.nix does not build `{}`", lost.name());
        }
        Ok(Self { flavour, root, prepared, systems, _in_use: in_use })
    }
}

fn missing_system(system: System) -> &'static str {
    unreachable!("Image::open found a path for every system, also for {}", system.name())
}

/// Makes what is missing for a flavour and says what it does; quick when all is there.
pub fn prepare(flavour: Flavour, say: &mut dyn FnMut(&str)) -> Result<Image> {
    available().map_err(|why| anyhow!(why))?;
    let _building =
        lock(&cache_dir().join(format!("lock-{}", flavour.name())), FlockOperation::LockExclusive)?;
    let (root, root_key) = root(flavour, say)?;
    let agent = env::var_os("NIXFLEET_AGENT_BIN").filter(|path| !path.is_empty()).map(PathBuf::from);
    let key = prepared_key(&root_key, agent.as_deref())?;
    let prepared = cache_dir().join(format!("prepared-{}-{key}", flavour.name()));
    if !prepared.exists() {
        say(&format!("{}: building systems and signing them into a cache", flavour.name()));
        let store = builder_store(flavour, &root_key)?;
        layer(&root, &store, &prepared, agent.as_deref())?;
    }
    let image = Image::open(flavour, root, prepared)?;
    prune(&format!("prepared-{}-", flavour.name()), &image.prepared, PREPARED_KEPT);
    say(&format!("{}: {} systems in {}", flavour.name(), image.systems.len(), image.prepared.display()));
    Ok(image)
}

/// The Debian root, and the key that names it.
fn root(flavour: Flavour, say: &mut dyn FnMut(&str)) -> Result<(PathBuf, String)> {
    let key = digest(&format!("1 {} {ROOT_PACKAGES}", flavour.name()))?;
    let root = cache_dir().join(format!("root-{}-{key}", flavour.name()));
    if root.exists() {
        return Ok((root, key));
    }
    say(&format!("{}: making a root with mmdebstrap", flavour.name()));
    let half = cache_dir().join(format!("half-root-{}", flavour.name()));
    remove(&half)?;
    let include = format!("--include={ROOT_PACKAGES}");
    let into = half.to_string_lossy();
    spawn::run(&["mmdebstrap", "--variant=minbase", &include, flavour.name(), &into], ROOT_LIMIT)?
        .success()?;
    fs::rename(&half, &root).with_context(|| format!("move {} to its place", half.display()))?;
    Ok((root, key))
}

fn prepared_key(root_key: &str, agent: Option<&Path>) -> Result<String> {
    let mut text = format!("{root_key}\n");
    for (name, content) in ASSETS {
        text.push_str(name);
        text.push_str(content);
    }
    if let Some(agent) = agent {
        if !agent.is_file() {
            bail!("NIXFLEET_AGENT_BIN names `{}`, which is no file", agent.display());
        }
        text.push_str(&sum(agent)?);
    }
    digest(&text)
}

/// The builder's store of this root; thrown away now and then.
fn builder_store(flavour: Flavour, root_key: &str) -> Result<PathBuf> {
    let store = cache_dir().join(format!("store-{}-{root_key}", flavour.name()));
    let uses_file = store.join("uses");
    let uses = fs::read_to_string(&uses_file).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0_u64);
    if uses > STORE_USES_MAX {
        remove(&store)?;
    }
    fs::create_dir_all(&store).with_context(|| format!("make {}", store.display()))?;
    crate::files::put(&uses_file, (uses % (STORE_USES_MAX + 1) + 1).to_string().as_bytes(), 0o644)?;
    Ok(store)
}

fn layer(root: &Path, store: &Path, prepared: &Path, agent: Option<&Path>) -> Result<()> {
    let half = prepared.with_extension("half");
    remove(&half)?;
    let assets = half.join("assets");
    fs::create_dir_all(&assets).with_context(|| format!("make {}", assets.display()))?;
    for (name, content) in ASSETS {
        crate::files::put(&assets.join(name), content.as_bytes(), 0o755)?;
    }
    let agent_dir = half.join("agent");
    if let Some(agent) = agent {
        fs::create_dir_all(agent_dir.join("bin"))?;
        fs::copy(agent, agent_dir.join("bin/nixfleet-agent")).context("copy the agent")?;
    }
    let script = assets.join("prepare.sh");
    let agent_arg = agent.map(|_| agent_dir.to_string_lossy()).unwrap_or_default();
    let texts = [&script, &root.to_path_buf(), &store.to_path_buf(), &half, &assets];
    let texts: Vec<_> = texts.iter().map(|path| path.to_string_lossy()).collect();
    let mut argv = vec!["unshare", "--mount", "--propagation", "private", "bash"];
    argv.extend(texts.iter().map(AsRef::as_ref));
    if agent.is_some() {
        argv.push(&agent_arg);
    }
    if let Err(error) = spawn::run(&argv, PREPARE_LIMIT)?.success() {
        // A store that was cut off in the middle may be what is wrong.
        remove(store)?;
        return Err(error.context("build the systems"));
    }
    fs::rename(&half, prepared).with_context(|| format!("move {} to its place", half.display()))
}

/// Removes the oldest folders of a kind that nobody uses, until with `keep` there are `kept`.
pub(crate) fn prune(prefix: &str, keep: &Path, kept: usize) {
    let Ok(entries) = fs::read_dir(cache_dir()) else { return };
    let mut found: Vec<_> = entries
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(prefix) && entry.path() != keep)
        .map(|entry| (entry.metadata().and_then(|meta| meta.modified()).ok(), entry.path()))
        .collect();
    found.sort();
    found.reverse();
    for (_, path) in found.into_iter().skip(kept.saturating_sub(1)) {
        if lock(&path.join("in-use"), FlockOperation::NonBlockingLockExclusive).is_ok() {
            let _ = fs::remove_dir_all(&path);
        }
    }
}

pub(crate) fn remove(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

pub(crate) fn digest(text: &str) -> Result<String> {
    let line = spawn::run_with_input(&["sha256sum"], text.as_bytes())?;
    Ok(line.chars().take(16).collect())
}

/// The SHA-256 of a large file, computed once for as long as the file stays as it is: each of a thousand test processes
/// asks for that of the agent, whose debug build takes a tenth of a second and more.
fn sum(path: &Path) -> Result<String> {
    let meta = fs::metadata(path).with_context(|| format!("look at {}", path.display()))?;
    let known = cache_dir().join(format!("sum-{}-{}", meta.dev(), meta.ino()));
    let state = format!("{} {} {}.{:09} ", path.display(), meta.len(), meta.mtime(), meta.mtime_nsec());
    let noted = fs::read_to_string(&known).unwrap_or_default();
    if let Some(sum) = noted.strip_prefix(&state).filter(|sum| sum.len() == SUM_LENGTH) {
        return Ok(sum.to_owned());
    }
    let output = spawn::run(&["sha256sum", &path.to_string_lossy()], Duration::from_mins(1))?.success()?;
    let sum: String = output.stdout.chars().take(SUM_LENGTH).collect();
    crate::files::put(&known, format!("{state}{sum}").as_bytes(), 0o644)?;
    Ok(sum)
}
