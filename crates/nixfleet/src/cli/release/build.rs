//! `nixfleet release build`: from the description to a release that waits for signatures.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use nixfleet::fleet::suggest::did_you_mean;
use nixfleet::fleet::{Fleet, Host, System};
use nixfleet::nix::{BuildFailed, BuildOptions, Closures, CopiedWhole, Nix, refuse_copied_keys};
use nixfleet::release::{Assembled, Built, Terms, assemble, hosts_of, open_alone};
use nixfleet::served::Served;
use nixfleet_core::ids::StorePath;
use nixfleet_core::model::layout;
use nixfleet_core::model::names::{ChannelName, HostName, Seq, Sha256};
use nixfleet_core::model::release::{Closure, Revision};
use nixfleet_core::model::time::{Date, UnixMs};
use nixfleet_core::nix::path_info::parse_path_info;
use nixfleet_sys::fs;
use nixfleet_sys::text::chain;
use nixfleet_trust::root::Root;
use tokio::signal::unix::{SignalKind, signal};

use super::{seq, show, worktree};
use crate::cli::folder::Folder;
use crate::cli::ui::{self, Complaint, Done, Output};
use crate::cli::{later, now, span};

#[derive(Debug, Args)]
pub(crate) struct BuildArgs {
    /// The channel
    #[arg(long)]
    channel: ChannelName,
    /// Its number [default: one more than the last]
    #[arg(long, value_name = "N", value_parser = seq)]
    seq: Option<Seq>,
    /// The source revision, such as a commit id; a channel that comes after another one, or before one, needs it
    #[arg(long)]
    revision: Option<Revision>,
    /// When it expires: then nothing new starts because of it
    #[arg(long, value_name = "TIME", value_parser = span, default_value = "30d")]
    expires_in: Duration,
    /// Copy everything to this store, such as a binary cache (repeatable)
    #[arg(long, value_name = "STORE-URL")]
    copy_to: Vec<String>,
    /// Sign everything with this key of a cache before it is copied (`nix-store --generate-binary-cache-key` makes one)
    #[arg(long, value_name = "FILE", requires = "copy_to")]
    cache_key: Option<PathBuf>,
    /// Ask this store how much a host downloads, and whether its contents are the same [default: the first `--copy-to`]
    #[arg(long, value_name = "STORE-URL")]
    sizes_from: Option<String>,
    /// Take closures from this output of `nix path-info --json --recursive` instead of asking Nix, for systems that were
    /// built elsewhere; every system must be a store path
    #[arg(long, value_name = "FILE", conflicts_with_all = ["copy_to", "sizes_from"])]
    path_info: Option<PathBuf>,
    /// So many builds at the same time
    #[arg(long, value_name = "N", default_value_t = 4)]
    jobs: usize,
    /// How long one build or fetch may take
    #[arg(long, value_name = "TIME", value_parser = span, default_value = "6h")]
    deadline: Duration,
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    output: Output,
}

/// The builds of a channel whose results are kept from the garbage collector: the last published one is among them as
/// long as not more than so many were made since.
const BUILDS_KEPT: usize = 4;
/// The largest file of path infos: 300,000 paths with 30 references each are about 800 MB.
const PATH_INFO_BYTES_MAX: u64 = 1 << 30;

pub(crate) fn build(folder: &Folder, args: &BuildArgs) -> Done {
    let now = now()?;
    let fleet = folder.fleet(args.output)?;
    let trust = folder.trust(None, now)?;
    check_root(trust.root(), &fleet, &args.channel)?;
    let revision = revision(folder, &fleet, args)?;
    let served = folder.served();
    // A number that cannot be is refused before hours of building; it is chosen afterwards.
    let _ = next_seq(folder, args)?;
    let hosts = hosts_of(&fleet, &args.channel);
    tell_pins(&hosts, now);
    let built = if let Some(path) = &args.path_info {
        told_by(&hosts, path, now)?
    } else {
        let flakes = folder.description_folder()?;
        refuse_keys_in(&flakes, &hosts, now)?;
        let options = BuildOptions {
            folder: flakes,
            jobs: args.jobs,
            deadline: args.deadline,
            roots: fresh_roots(&folder.roots(&args.channel)?, now)?,
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(unless_interrupted(build_all(&hosts, args, &options, now)))?
    };
    let held = served.lock()?;
    let terms = terms(folder, args, revision)?;
    let Assembled { release, envelope, entries } = assemble(&fleet, &args.channel, &built, terms)?;
    served.put_release(&held, (&args.channel, release.seq), &envelope, &entries)?;
    let path = served.folder().join(layout::release(&args.channel, release.seq));
    ui::say(&format!(
        "built release {}/{} for {}; no host sees it before it is signed",
        args.channel,
        release.seq,
        ui::hosts(release.hosts)
    ));
    match args.output {
        Output::Table => ui::data(&path.display().to_string()),
        Output::Name => ui::data(&format!("{}/{}", args.channel, release.seq)),
        Output::Json => show::json(&release, &envelope, None)?,
    }
    Ok(())
}

/// Refuses a build for which Nix would copy a private key to where everybody can read it, before Nix is asked for anything.
fn refuse_keys_in(folder: &Path, hosts: &BTreeMap<&HostName, &Host>, now: UnixMs) -> Done {
    let systems = hosts.values().map(|host| host.system_at(now));
    let installables: BTreeSet<&str> = systems
        .filter_map(|system| match system {
            System::Installable(installable) => Some(installable.as_str()),
            System::Path(_) => None,
        })
        .collect();
    let not_looked = refuse_copied_keys(installables, folder).map_err(copies_a_key)?;
    for why in not_looked {
        ui::say(&format!(
            "warning: nobody has looked for private keys among what Nix copies: {}",
            chain(&why)
        ));
    }
    Ok(())
}

fn copies_a_key(copied: CopiedWhole) -> Complaint {
    match &copied {
        CopiedWhole::Key { key, .. } => Complaint::refused(chain(&copied))
            .hint(
                "of a git tree Nix copies only what git knows: `git init` the folder, keep `keys/` in its .gitignore, and \
                 write `.#NAME`, not `path:.#NAME`",
            )
            .hint(format!("or move `{}` out of that folder, and name it from there when it signs", key.display())),
        CopiedWhole::Tracked { key, .. } => Complaint::refused(chain(&copied))
            .hint(format!("`git rm --cached {}` has git forget it, and .gitignore keeps it out", key.display()))
            .hint("if it was committed, who has the repository has it: take it for stolen (SECURITY.md says what to do)"),
        CopiedWhole::TooMuch { .. } => Complaint::refused(chain(&copied))
            .hint("of a git tree Nix copies only what git knows; or put the flake into a folder of its own"),
        CopiedWhole::Unreadable(_) => copied.into(),
    }
}

/// Refuses early what no signature could make good.
fn check_root(root: &Root, fleet: &Fleet, channel: &ChannelName) -> Done {
    if root.fleet != fleet.fleet {
        return Err(Complaint::refused(format!(
            "the description is of fleet {}, and the root of fleet {}",
            fleet.fleet, root.fleet
        )));
    }
    if !fleet.channels.contains_key(channel) {
        let complaint = Complaint::refused(format!("the fleet description has no channel {channel}"));
        let known = fleet.channels.keys().map(ChannelName::as_str);
        return Err(match did_you_mean(channel.as_str(), known) {
            Some(hint) => complaint.hint(hint),
            None => complaint,
        });
    }
    if !root.channels.contains_key(channel) {
        return Err(Complaint::refused(format!("root {} has no channel {channel}", root.version))
            .hint(format!("`nixfleet root channel {channel} --release-key FILE` adds it")));
    }
    Ok(())
}

/// The release's number. None is ever used twice, not even that of a release that nobody signed.
fn next_seq(folder: &Folder, args: &BuildArgs) -> Result<Seq, Complaint> {
    let numbers = folder.numbers(&args.channel, now()?)?;
    let Some(seq) = args.seq else {
        return numbers.next().ok_or_else(|| Complaint::refused("there is no number after the last one"));
    };
    let (last, floor) = (numbers.newest().unwrap_or(Seq::ZERO), numbers.floor());
    let refused = |why: String| Err(Complaint::refused(why));
    if seq <= last {
        refused(format!("release {seq} would not be higher than the last, {last}"))
    } else if numbers.is_taken(seq) {
        refused(format!("there is a release {seq} from before the channel was set back"))
    } else if seq < floor {
        refused(format!("no host takes release {seq}: by the root, the lowest is {floor}"))
    } else {
        Ok(seq)
    }
}

/// The source that the release is said to be of. Where channels follow one another, evidence about one source must not count
/// for another, so nobody may leave it unsaid there.
fn revision(folder: &Folder, fleet: &Fleet, args: &BuildArgs) -> Result<Revision, Complaint> {
    let revision = args.revision.clone().unwrap_or_else(Revision::unknown);
    if !revision.is_unknown() {
        if let Some(changed) = worktree::changed(&folder.description_folder()?, folder.served().folder()) {
            ui::say(&format!(
                "warning: `{changed}` differs from what is committed, so {revision} may not be what is built"
            ));
        }
        return Ok(revision);
    }
    let channel = &args.channel;
    let after = fleet.channels.get(channel).and_then(|described| described.after.first());
    let before = fleet.channels.iter().find(|(_, other)| other.after.contains(channel));
    let Some(other) = after.or(before.map(|(name, _)| name)) else { return Ok(revision) };
    let (first, second) = if after.is_some() { (other, channel) } else { (channel, other) };
    Err(Complaint::refused(format!("a release of channel {channel} needs a source revision")).hint(format!(
        "channel {second} waits until {first} has converged on its own revision: `--revision \"$(git rev-parse HEAD)\"`"
    )))
}

/// What is said after everything is built: waves open from then on, and not from before a long build.
fn terms(folder: &Folder, args: &BuildArgs, revision: Revision) -> Result<Terms, Complaint> {
    let now = now()?;
    Ok(Terms {
        seq: next_seq(folder, args)?,
        created: now,
        expires: later(now, args.expires_in)?,
        revision,
        previous: previous(folder.served(), &args.channel)?,
    })
}

/// A new folder for links to what is built; of the older ones, those of the last builds stay, for `release diff`.
fn fresh_roots(folder: &Path, now: UnixMs) -> Result<PathBuf, Complaint> {
    let old: Vec<String> = fs::names_in(folder)?;
    for name in old.iter().rev().skip(BUILDS_KEPT - 1) {
        fs::remove_tree(&folder.join(name))?;
    }
    // Names of one length, so that their order is that of time.
    let fresh = folder.join(format!("{:015}", now.get()));
    fs::make_dir(&fresh)?;
    Ok(fresh)
}

/// Ends Nix when this program is told to end: it runs in a group of its own, which no terminal reaches.
async fn unless_interrupted<T>(work: impl Future<Output = Result<T, Complaint>>) -> Result<T, Complaint> {
    let mut terminated = signal(SignalKind::terminate())?;
    // Either arm may be dropped at any point: nothing is written before all is built, and Nix dies with its handle.
    tokio::select! {
        done = work => done,
        _ = tokio::signal::ctrl_c() => Err(Complaint::refused("interrupted; no release was made")),
        _ = terminated.recv() => Err(Complaint::refused("told to end; no release was made")),
    }
}

/// The digest of the release that hosts are given now.
fn previous(served: &Served, channel: &ChannelName) -> Result<Option<Sha256>, Complaint> {
    match served.latest(channel)? {
        Some(latest) => Ok(Some(open_alone(served, channel, latest)?.0.digest())),
        None => Ok(None),
    }
}

/// Builds every system of the channel's hosts, looks at the closures, and copies them where they are wanted.
async fn build_all(
    hosts: &BTreeMap<&HostName, &Host>,
    args: &BuildArgs,
    options: &BuildOptions,
    now: UnixMs,
) -> Result<BTreeMap<HostName, Built>, Complaint> {
    let systems: BTreeSet<System> = hosts.values().map(|host| host.system_at(now).clone()).collect();
    let nix = Nix::find()
        .map_err(|error| Complaint::from(error).hint("`release build` needs Nix on this machine"))?;
    let bar = bar(systems.len(), "building");
    let built = nix.build(&systems, options, |done| bar.set_position(done as u64)).await;
    bar.finish_and_clear();
    let built = built.map_err(|failed| not_built(&failed))?;
    let paths: Vec<StorePath> = built.values().cloned().collect::<BTreeSet<_>>().into_iter().collect();
    if let Some(key) = &args.cache_key {
        nix.sign(&paths, &fs::resolve(key)?).await?;
    }
    for store in &args.copy_to {
        ui::say(&format!("copying to {store}"));
        nix.copy(&paths, store).await?;
    }
    let cache = args.sizes_from.as_ref().or(args.copy_to.first());
    let closures = closures(&nix, &paths, cache.map(String::as_str)).await?;
    let of_host = |(name, host): (&HostName, &Host)| {
        let system = built[host.system_at(now)].clone();
        let closure = closures[&system].clone();
        (name.clone(), Built { system, closure })
    };
    Ok(hosts.iter().map(|(name, host)| of_host((name, host))).collect())
}

/// The same from a file, without Nix.
fn told_by(
    hosts: &BTreeMap<&HostName, &Host>,
    path: &Path,
    now: UnixMs,
) -> Result<BTreeMap<HostName, Built>, Complaint> {
    let infos = parse_path_info(&fs::read_bounded(path, PATH_INFO_BYTES_MAX)?)
        .map_err(|error| Complaint::refused(format!("`{}` is not understood: {error}", path.display())))?;
    let all = Closures::new(infos.known)?;
    let mut closures: BTreeMap<StorePath, Closure> = BTreeMap::new();
    let mut built = BTreeMap::new();
    for (name, host) in hosts {
        let System::Path(system) = host.system_at(now) else {
            return Err(Complaint::refused(format!("host {name} has a system that is yet to be built"))
                .hint("with `--path-info` every system must be a store path"));
        };
        let closure = match closures.get(system) {
            Some(known) => known.clone(),
            None => closures.entry(system.clone()).or_insert(all.of(system)?).clone(),
        };
        built.insert((*name).clone(), Built { system: system.clone(), closure });
    }
    Ok(built)
}

/// What each closure is: its contents as the local store has them, and how much a host downloads where a cache tells.
async fn closures(
    nix: &Nix,
    paths: &[StorePath],
    cache: Option<&str>,
) -> Result<BTreeMap<StorePath, Closure>, Complaint> {
    let mut infos = nix.path_info(paths, None).await?.known;
    if let Some(cache) = cache {
        let there = nix.path_info(paths, Some(cache)).await?.known;
        let there: BTreeMap<&StorePath, _> = there.iter().map(|info| (&info.path, info)).collect();
        for info in &mut infos {
            let Some(other) = there.get(&info.path) else { continue };
            if (other.nar_hash, other.nar_size) != (info.nar_hash, info.nar_size) {
                return Err(Complaint::refused(format!("{cache} has other contents of {} than this machine", info.path))
                    .hint("the path was built twice with different results; remove it from the cache and copy it again"));
            }
            info.download_size = other.download_size;
        }
    }
    let all = Closures::new(infos)?;
    let one = |path: &StorePath| Ok((path.clone(), all.of(path)?));
    paths.iter().map(one).collect()
}

/// A pin is easy to forget, so it is said each time.
fn tell_pins(hosts: &BTreeMap<&HostName, &Host>, now: UnixMs) {
    for (name, pin) in hosts.iter().filter_map(|(name, host)| Some((name, host.pin.as_ref()?))) {
        let until = pin.until.map(|until| format!(" until {}", Date(until))).unwrap_or_default();
        ui::say(&if pin.holds_at(now) {
            format!("host {name} is pinned to {}{until}: {}", pin.system, pin.reason)
        } else {
            format!("warning: the pin of host {name} has ended, and it goes with the others: remove it")
        });
    }
}

fn not_built(failed: &[BuildFailed]) -> Complaint {
    for failure in failed.iter().take(20) {
        ui::say(&format!("error: {}", chain(failure)));
    }
    Complaint::refused(format!("{} could not be had; no release was made", ui::counted(failed.len(), "system"))).hint(
        "a host's `system` in fleet.json is the store path of a system, or what `nix build` takes; `.#NAME` is of the flake \
         in the fleet folder or in a folder above it",
    )
}

/// A bar on a terminal, and nothing elsewhere.
fn bar(length: usize, what: &'static str) -> ProgressBar {
    if !ui::is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(length as u64).with_message(what);
    let style = ProgressStyle::with_template("{elapsed:>4} {msg} {bar:30} {pos}/{len}");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar.enable_steady_tick(Duration::from_millis(120));
    bar
}
