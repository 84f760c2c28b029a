//! Where things are on a host, and the few facts that are read straight from links and files.

use std::path::{Path, PathBuf};

use nixfleet_core::activation::inhibit::Parts;
use nixfleet_core::activation::record::{Activation, Purpose};
use nixfleet_core::activation::way_back::failed_revert;
use nixfleet_core::ids::{ActivationId, BootId, Generation, StorePath};
use nixfleet_sys::fs;

use crate::tools::nix_env::read_generations;

/// The agent's one folder; on hosts with an ephemeral root it must be made persistent (lesson 14).
pub const STATE_DIR: &str = "/var/lib/nixfleet";

/// The paths that an activation touches. There is one set per host; tests of the Darwin backend make another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostPaths {
    /// The link to the running system.
    pub current_system: PathBuf,
    /// The link to the system that was booted; Darwin has none.
    pub booted_system: PathBuf,
    /// The system profile.
    pub profile: PathBuf,
    /// Our own folder of garbage collector roots.
    pub roots: PathBuf,
    /// Our own state.
    pub state: PathBuf,
    /// The lock of whoever activates; in `/run`, so that two state folders cannot make two activations.
    pub lock: PathBuf,
}

/// What a run leaves beside the record of its end, as empty files with a common beginning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Marks(PathBuf);

impl Marks {
    /// Those that begin with `path`.
    pub fn at(path: PathBuf) -> Self {
        Self(path)
    }

    /// How they begin.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The run has begun. It goes with the activation.
    pub fn begun(&self) -> PathBuf {
        self.0.with_added_extension("begun")
    }

    /// Its end was recorded by the process around it. It goes with the unit.
    pub fn recorded(&self) -> PathBuf {
        self.0.with_added_extension("recorded")
    }
}

impl Default for HostPaths {
    fn default() -> Self {
        Self {
            current_system: "/run/current-system".into(),
            booted_system: "/run/booted-system".into(),
            profile: "/nix/var/nix/profiles/system".into(),
            roots: "/nix/var/nix/gcroots/nixfleet".into(),
            state: STATE_DIR.into(),
            lock: "/run/nixfleet/activation.lock".into(),
        }
    }
}

impl HostPaths {
    /// The default paths with another state folder.
    pub fn with_state(state: &Path) -> Self {
        Self { state: state.to_owned(), ..Self::default() }
    }

    /// Whether nothing can be kept because of how the file system under the state folder is mounted; that of the nearest
    /// folder above it, if it is not there yet.
    pub fn is_read_only(&self) -> bool {
        self.state.ancestors().find(|folder| folder.exists()).is_some_and(fs::is_read_only)
    }

    /// The activation journal.
    pub fn journal(&self) -> PathBuf {
        self.state.join("journal.jsonl")
    }

    /// What happened on this host, until somebody has it.
    pub fn outbox(&self) -> PathBuf {
        self.state.join("outbox.jsonl")
    }

    /// What a fetch has put into the store and nobody has synced; see [`super::unsynced`].
    pub fn unsynced(&self) -> PathBuf {
        self.state.join("unsynced")
    }

    /// [`HostPaths::unsynced`] for what is only staged: a person may activate at the same time.
    pub fn unsynced_staging(&self) -> PathBuf {
        self.state.join("unsynced-staging")
    }

    /// The folder of the roots that the state wants, beside those of activations: see [`HostPaths::wanted_root`].
    pub fn wanted_roots(&self) -> PathBuf {
        let mut name = self.roots.file_name().unwrap_or_default().to_owned();
        name.push("-wanted");
        self.roots.with_file_name(name)
    }

    /// The root of a system that must not be collected now, by the name of its store path.
    pub fn wanted_root(&self, system: &StorePath) -> PathBuf {
        self.wanted_roots().join(system.as_path().file_name().unwrap_or_default())
    }

    /// Held by the agent that follows a source: there is one at most.
    pub fn agent_lock(&self) -> PathBuf {
        self.lock.with_file_name("agent.lock")
    }

    /// Where detached runs record how they ended.
    pub fn ends(&self) -> PathBuf {
        self.state.join("ends")
    }

    /// The record of one run.
    pub fn end_of(&self, unit: &str) -> PathBuf {
        self.ends().join(format!("{unit}.json"))
    }

    /// How far a run has come in this boot. In `/run`: a full disk does not keep it away, and after a restart it would say nothing.
    pub fn marks_of(&self, unit: &str) -> Marks {
        Marks(self.lock.with_file_name(unit))
    }

    /// A copy of the agent for the rescue, where it does not lie in the store.
    pub fn rescue_copy(&self, id: &ActivationId) -> PathBuf {
        self.state.join(format!("rescue-{id}"))
    }

    /// The garbage collector root of one kind for an activation.
    pub fn root(&self, kind: RootKind, id: &ActivationId) -> PathBuf {
        let kind = match kind {
            RootKind::Target => "target",
            RootKind::Previous => "previous",
            RootKind::Rescue => "rescue",
        };
        self.roots.join(format!("{id}-{kind}"))
    }

    /// The root that outlives its activation, whose way back failed: that system must be there when a person takes the
    /// way again.
    pub fn way_back_root(&self, failed: &Activation) -> PathBuf {
        let kind = match failed.began.purpose {
            Purpose::Activate => RootKind::Previous,
            Purpose::Rollback => RootKind::Target,
        };
        self.root(kind, &failed.id)
    }

    /// [`HostPaths::way_back_root`], if a way back failed and nothing has arrived since.
    pub fn kept_root(&self, known: &[Activation]) -> Option<PathBuf> {
        failed_revert(known).map(|failed| self.way_back_root(failed))
    }

    /// The system that runs now; `None` when there is no link, as in the instant of a flip that unlinks first.
    pub fn current(&self) -> Option<StorePath> {
        system_behind(&self.current_system)
    }

    /// The system that was booted.
    pub fn booted(&self) -> Option<StorePath> {
        system_behind(&self.booted_system)
    }

    /// The current generation of the profile; `None` when there is none that can be read.
    pub fn generation(&self) -> Option<Generation> {
        read_generations(&self.profile).ok().and_then(|generations| generations.current)
    }

    /// The system that the profile points to.
    pub fn profile_system(&self) -> Option<StorePath> {
        fs::resolve(&self.profile).ok().and_then(|path| StorePath::containing(&path).ok())
    }
}

/// Why this boot could not be told from another. Nothing is activated then: after a crash nobody could say whether the
/// host was restarted in between.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("cannot tell this boot from another: {why}")]
pub struct BootUnknown {
    /// What was wrong.
    pub why: String,
}

/// This boot, as Linux names it.
pub fn linux_boot_id() -> Result<BootId, BootUnknown> {
    const FILE: &str = "/proc/sys/kernel/random/boot_id";
    let text = std::fs::read_to_string(FILE)
        .map_err(|error| BootUnknown { why: format!("cannot read `{FILE}`: {error}") })?;
    if text.trim().is_empty() {
        return Err(BootUnknown { why: format!("`{FILE}` is empty") });
    }
    Ok(BootId::new(&text))
}

/// What a garbage collector root of ours keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RootKind {
    /// The target, from before its download.
    Target,
    /// The way back.
    Previous,
    /// The agent that takes it.
    Rescue,
}

/// All kinds, for cleaning up.
pub const ROOT_KINDS: [RootKind; 3] = [RootKind::Target, RootKind::Previous, RootKind::Rescue];

fn system_behind(link: &Path) -> Option<StorePath> {
    // One step only: the link names the system itself, and what lies behind a store path is its own affair.
    let target = fs::read_link(link).ok()?;
    target.to_str()?.parse().ok()
}

/// The store path that a file of a system leads to, such as its kernel; `None` when the system has no such file.
///
/// Links are followed one by one and the last store path on the way counts: a package may link out of the store.
pub fn part(system: &StorePath, file: &str) -> Option<String> {
    /// The kernel gives up after 40 links; nobody has as many.
    const LINKS_MAX: u32 = 40;
    let mut at = system.join(file);
    let mut found = None;
    for _ in 0..LINKS_MAX {
        let folder = fs::resolve(at.parent()?).ok()?;
        at = folder.join(at.file_name()?);
        std::fs::symlink_metadata(&at).ok()?;
        found = StorePath::containing(&at).ok().or(found);
        match fs::read_link(&at) {
            Ok(target) => at = folder.join(target),
            Err(_) => break,
        }
    }
    found.map(|path| path.to_string())
}

/// The parts of a system that `files` name, each by the first of its files that exists.
pub fn parts(system: &StorePath, files: &[(&str, &[&str])]) -> Parts {
    let one = |(key, files): &(&str, &[&str])| {
        let found = files.iter().find_map(|file| part(system, file))?;
        Some(((*key).to_owned(), found))
    };
    files.iter().filter_map(one).collect()
}

/// The text of a small file of a system; empty when it has none.
pub fn system_text(system: &StorePath, file: &str) -> String {
    /// Inhibitor and trigger files have a few lines.
    const BYTES_MAX: u64 = 1 << 20;
    let bytes = fs::read_bounded(&system.join(file), BYTES_MAX).unwrap_or_default();
    String::from_utf8_lossy(&bytes).into_owned()
}
