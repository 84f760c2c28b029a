//! `nixfleet init`: a fleet folder that works, and what to do next.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use nixfleet::authority::Pending;
use nixfleet::fleet::EXAMPLE;
use nixfleet::nix::is_in_git;
use nixfleet::served::Served;
use nixfleet_core::model::names::{ChannelName, FleetId, RootVersion, Seq};
use nixfleet_core::model::time::UnixMs;
use nixfleet_sys::fs;
use nixfleet_trust::key::{KeyId, PublicKey};
use nixfleet_trust::root::{ChannelRules, Role, Root};
use nixfleet_trust::sign::private_key::PrivateKey;
use nixfleet_trust::sign::{self, Signer};

use super::folder::Folder;
use super::keys::{NewType, write_new};
use super::ui::{self, Complaint, Done};
use super::{later, now, span};

#[derive(Debug, Args)]
pub(crate) struct InitArgs {
    /// The folder, empty or not there yet [default: the fleet folder]
    folder: Option<PathBuf>,
    /// The fleet's id, which every signed document carries for ever [default: the folder's name]
    #[arg(long)]
    fleet_id: Option<FleetId>,
    /// The first channel
    #[arg(long, default_value = "stable")]
    channel: ChannelName,
    /// When the root expires; a root can be renewed at any time before and after
    #[arg(long, value_name = "TIME", value_parser = span, default_value = "2y")]
    expires_in: Duration,
}

/// What is in the folder and must not be in a repository.
const GITIGNORE: &str = "/keys/*\n!/keys/*.pub\n/roots/\n";
/// Said where no git would heed it.
const NO_GIT: &str = "\nthis folder is in no git tree. If a flake is to be in it or above it, `git init` there first, or move keys/ \
     elsewhere: of a flake outside of git Nix copies everything into /nix/store, where everybody can read it, keys too. \
     `release build` refuses that.";

pub(crate) fn init(folder: &Folder, args: InitArgs) -> Done {
    let dir = args.folder.unwrap_or_else(|| folder.dir().to_owned());
    let names = fs::names_in(&dir)?;
    if let Some(first) = names.first() {
        return Err(Complaint::refused(format!("`{}` is not empty: it has `{first}`", dir.display()))
            .hint("give a folder that is empty or not there yet"));
    }
    let fleet = match args.fleet_id {
        Some(id) => id,
        None => id_from(&dir)?,
    };
    let now = now()?;
    fs::make_public_dir(&dir)?;
    let root_key = write_new(&dir.join("keys/root"), NewType::Ed25519, &format!("{fleet} root"))?;
    let release_key = write_new(&dir.join("keys/release"), NewType::Ed25519, &format!("{fleet} release"))?;
    let root = first_root(
        fleet.clone(),
        &root_key,
        &release_key,
        &args.channel,
        (now, later(now, args.expires_in)?),
    );
    let key = nixfleet::signers::private_key(&dir.join("keys/root"))?;
    let next = Pending::in_folder(&dir).keep(root)?;
    let signed = sign::add(&next.envelope, &key)?;
    let served = Served::new(dir.join("served"));
    let held = served.lock()?;
    served.put_root(&held, RootVersion::FIRST, &signed)?;
    Pending::in_folder(&dir).drop()?;
    fs::write_atomic_mode(&dir.join("fleet.json"), example(&fleet, &args.channel)?.as_bytes(), 0o644)?;
    fs::write_atomic_mode(&dir.join(".gitignore"), GITIGNORE.as_bytes(), 0o644)?;
    tell(&dir.display().to_string(), &args.channel);
    if !is_in_git(&fs::resolve(&dir)?) {
        ui::say(NO_GIT);
    }
    Ok(())
}

fn id_from(dir: &std::path::Path) -> Result<FleetId, Complaint> {
    let absolute = std::path::absolute(dir)?;
    let name = absolute.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
    name.parse().map_err(|error| Complaint::from(error).hint("name the fleet with `--fleet-id`"))
}

fn first_root(
    fleet: FleetId,
    root_key: &PublicKey,
    release_key: &PublicKey,
    channel: &ChannelName,
    (created_ms, expires_ms): (UnixMs, UnixMs),
) -> Root {
    let role = |key: &PublicKey| Role { keys: vec![key.id()], threshold: 1 };
    let keys: BTreeMap<KeyId, PublicKey> =
        [root_key, release_key].into_iter().map(|key| (key.id(), key.clone())).collect();
    let rules = ChannelRules {
        release: role(release_key),
        seq_floor: Seq::ZERO,
        resets: 0,
        not_before_ms: UnixMs::EPOCH,
    };
    Root {
        fleet,
        version: RootVersion::FIRST,
        created_ms,
        expires_ms,
        keys,
        root: role(root_key),
        channels: BTreeMap::from([(channel.clone(), rules)]),
        info: BTreeMap::new(),
    }
}

/// The example with a key that nobody has the private half of: nobody can be that host by mistake.
fn example(fleet: &FleetId, channel: &ChannelName) -> Result<String, Complaint> {
    let nobodys = PrivateKey::generate()?;
    let key = String::from(nobodys.public_key().clone());
    let text = EXAMPLE.replace("@FLEET@", fleet.as_str()).replace("@KEY@", &key);
    Ok(text.replace("\"stable\"", &format!("\"{channel}\"")))
}

fn tell(dir: &str, channel: &ChannelName) {
    ui::say(&format!(
        "made the fleet folder {dir}:\n\n  \
         keys/root      signs roots: move it to a safe place, offline if you can\n  \
         keys/release   signs releases of {channel}\n  \
         fleet.json     an example: put in your hosts, each with its system and its SSH host key\n  \
         served/        what hosts are given: serve it with any web server\n\n\
         next, when fleet.json says what you want:\n"
    ));
    let dir = if dir == "." { String::new() } else { format!(" -C {dir}") };
    let keys = if dir.is_empty() { "keys/release".to_owned() } else { format!("{}/keys/release", &dir[4..]) };
    ui::data(&format!("nixfleet{dir} release build --channel {channel}"));
    ui::data(&format!("nixfleet{dir} release sign --channel {channel} --key {keys}"));
    ui::data(&format!("nixfleet{dir} release verify --channel {channel}"));
    ui::say(
        "\nthen copy served/ to the web server, and give each host served/root/1.json as /etc/nixfleet/root.json and an \
         /etc/nixfleet/agent.toml with `host`, `channel` and `source`; `nixfleet-agent check` says there what is missing",
    );
}
