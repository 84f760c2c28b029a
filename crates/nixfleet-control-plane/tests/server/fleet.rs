//! A fleet with keys, whose releases are made with the code that operators use, and hosts that fold events as agents do.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use nixfleet_control_plane::store::Store;
use nixfleet_core::activation::events::CommitPolicy;
use nixfleet_core::host::retry::seed_of;
use nixfleet_core::host::world::{Reboots, Setup, SourceKind, World};
use nixfleet_core::host::{Context, Event, HostState, Now, Record, Terms, UpMs, advance};
use nixfleet_core::ids::{BootId, StorePath};
use nixfleet_core::model::layout;
use nixfleet_core::model::names::{ChannelName, HostName, ReleaseId, RootVersion, Seq};
use nixfleet_core::model::policy::{Approval, OnFailure, Policy, Wave, WaveIndex};
use nixfleet_core::model::release::{Closure, Entry, Release};
use nixfleet_core::model::schedule::{RebootMode, RebootPolicy};
use nixfleet_core::model::time::{Secs, UnixMs};
use nixfleet_core::wire::Order;
use nixfleet_sys::{clock, fs};
use nixfleet_trust::author::{self, Assembly};
use nixfleet_trust::envelope::Envelope;
use nixfleet_trust::key::PublicKey;
use nixfleet_trust::root::{ChannelRules, Role, Root};
use nixfleet_trust::sign::private_key::PrivateKey;
use nixfleet_trust::sign::{self, Signer};
use rcgen::{CertificateParams, KeyPair, PKCS_ED25519};

pub(crate) fn now() -> UnixMs {
    UnixMs::new(clock::unix_ms()).expect("a time in range")
}

pub(crate) fn channel() -> ChannelName {
    "stable".parse().expect("a name")
}

pub(crate) fn host_name(name: &str) -> HostName {
    name.parse().expect("a name")
}

pub(crate) fn system(host: &HostName, seq: u64) -> StorePath {
    format!("/nix/store/0123456789abcdfghijklmnpqrsvwxyz-nixos-system-{host}-{seq}").parse().expect("a path")
}

/// A host's key, as it stands in a release and in its certificate.
pub(crate) struct HostKeys {
    pub(crate) pair: KeyPair,
    pub(crate) public: PublicKey,
}

impl HostKeys {
    pub(crate) fn new() -> Self {
        let pair = KeyPair::generate_for(&PKCS_ED25519).expect("randomness");
        let public =
            PublicKey::from_spki(&rcgen::PublicKeyData::subject_public_key_info(&pair)).expect("a key");
        Self { pair, public }
    }

    /// A certificate that the key signed for itself.
    pub(crate) fn certificate(&self) -> Vec<u8> {
        let params = CertificateParams::new(vec!["whatever.example".to_owned()]).expect("a name");
        params.self_signed(&self.pair).expect("it signs").der().to_vec()
    }
}

/// The owner of a fleet: one key for everything.
pub(crate) struct Fleet {
    signer: PrivateKey,
    pub(crate) hosts: BTreeMap<HostName, HostKeys>,
    /// For how long its roots count.
    pub(crate) root_days: u32,
}

/// The documents of one release.
pub(crate) struct Documents {
    pub(crate) id: ReleaseId,
    pub(crate) release: Vec<u8>,
    pub(crate) entries: Vec<(HostName, Vec<u8>)>,
    /// How often a root had set the channel back when hosts verified it.
    pub(crate) resets: u32,
    /// What it says to each host.
    pub(crate) terms: BTreeMap<HostName, Terms>,
}

impl Fleet {
    pub(crate) fn of(names: &[&str]) -> Self {
        let hosts = names.iter().map(|name| (host_name(name), HostKeys::new())).collect();
        Self { signer: PrivateKey::generate().expect("randomness"), hosts, root_days: 400 }
    }

    /// Other hosts of the same owner.
    pub(crate) fn with_hosts(&self, names: &[&str]) -> Self {
        let signer =
            PrivateKey::read(&self.signer.to_openssh("fleet").expect("randomness")).expect("its own form");
        Self { signer, ..Self::of(names) }
    }

    fn seal(&self, envelope: &Envelope) -> Vec<u8> {
        sign::add(envelope, &self.signer).expect("it signs").to_bytes()
    }

    fn role(&self) -> Role {
        Role { keys: vec![self.signer.public_key().id()], threshold: 1 }
    }

    /// Root `version`.
    pub(crate) fn root(&self, version: u64) -> Vec<u8> {
        self.root_after_resets(version, 0)
    }

    /// Root `version`, in which the channel's owner has set the floor back so often.
    pub(crate) fn root_after_resets(&self, version: u64, resets: u32) -> Vec<u8> {
        self.root_of(version, resets, &[channel()])
    }

    /// Root `version`, with these channels.
    pub(crate) fn root_of(&self, version: u64, resets: u32, channels: &[ChannelName]) -> Vec<u8> {
        let key = self.signer.public_key();
        let rules =
            ChannelRules { release: self.role(), seq_floor: Seq::ZERO, resets, not_before_ms: UnixMs::EPOCH };
        let root = Root {
            fleet: "acme".parse().expect("a name"),
            version: RootVersion::new(version).expect("a version"),
            created_ms: UnixMs::new(now().get() - 1_000_000 + version).expect("a time"),
            expires_ms: now().plus(Secs(self.root_days * 86_400)),
            keys: BTreeMap::from([(key.id(), key.clone())]),
            root: self.role(),
            channels: channels.iter().map(|channel| (channel.clone(), rules.clone())).collect(),
            info: BTreeMap::new(),
        };
        self.seal(&author::root(&root).expect("a sound root"))
    }

    /// Release `seq` over all hosts: the first in the wave `canary`, the others in `rest`, neither with a soak.
    pub(crate) fn release(&self, seq: u64) -> Documents {
        self.release_with(seq, policy())
    }

    pub(crate) fn release_with(&self, seq: u64, policy: Policy) -> Documents {
        self.release_in(&channel(), seq, policy)
    }

    /// Release `seq` of a channel over all hosts.
    pub(crate) fn release_in(&self, channel: &ChannelName, seq: u64, policy: Policy) -> Documents {
        let entries: Vec<Entry> =
            self.hosts.iter().enumerate().map(|(at, (host, keys))| entry(at, host, keys, seq)).collect();
        let assembly = Assembly::new(entries.clone(), &policy).expect("sound entries");
        let release = Release {
            fleet: "acme".parse().expect("a name"),
            channel: channel.clone(),
            seq: Seq::new(seq).expect("a number"),
            created_ms: now(),
            expires_ms: now().plus(Secs(10 * 86_400)),
            revision: format!("rev{seq}").parse().expect("a revision"),
            policy,
            hosts: assembly.hosts(),
            entries_root: assembly.entries_root(),
            previous: None,
            info: BTreeMap::new(),
        };
        let envelope = author::release(&release).expect("a sound release");
        let id = ReleaseId { channel: channel.clone(), seq: release.seq, digest: envelope.digest() };
        let terms = entries
            .iter()
            .map(|entry| (entry.host.clone(), Terms::new(id.clone(), &release, entry).expect("terms")));
        Documents {
            release: self.seal(&envelope),
            entries: assembly.envelopes().map(|(host, entry)| (host.clone(), entry.to_bytes())).collect(),
            resets: 0,
            terms: terms.collect(),
            id,
        }
    }
}

pub(crate) fn policy() -> Policy {
    let wave = |name: &str| Wave {
        name: name.parse().expect("a name"),
        opens_after_secs: Secs(0),
        soak_secs: Secs(0),
        approval: Approval::NotNeeded,
    };
    Policy {
        waves: vec![wave("canary"), wave("rest")],
        max_in_flight: Vec::new(),
        edges: Vec::new(),
        after: BTreeSet::new(),
        stage_in_flight: None,
        max_failures: 0,
        on_failure: OnFailure::Revert,
        commit: CommitPolicy::AfterConfirm,
        confirm_within_secs: Secs(300),
        windows: Vec::new(),
        reboot: RebootPolicy { mode: RebootMode::Never, ..RebootPolicy::default() },
        offline_after_secs: Secs(86_400),
    }
}

fn entry(at: usize, host: &HostName, keys: &HostKeys, seq: u64) -> Entry {
    Entry {
        host: host.clone(),
        keys: vec![
            format!("ssh-ed25519 {}", data_encoding::BASE64.encode(&keys.public.blob()))
                .parse()
                .expect("a key"),
        ],
        tags: ["web".parse().expect("a tag")].into(),
        wave: WaveIndex(u16::from(at != 0)),
        system: system(host, seq),
        closure: Closure {
            digest: format!("sha256:{seq:064x}").parse().expect("a digest"),
            fetch_bytes: 1_000,
            unpacked_bytes: 3_000,
        },
        probes: Vec::new(),
        reboot: None,
    }
}

impl Documents {
    /// The same, verified by hosts under a root that has set the channel back so often.
    pub(crate) fn after_resets(self, resets: u32) -> Self {
        let terms = self.terms.into_iter().map(|(host, terms)| (host, terms.after_resets(resets)));
        Self { resets, terms: terms.collect(), ..self }
    }

    /// What `nixfleet release push` sends.
    pub(crate) fn pushed(&self) -> Vec<u8> {
        let entries = self.entries.iter().map(|(_, entry)| entry.as_slice());
        [self.release.as_slice()].into_iter().chain(entries).flatten().copied().collect()
    }

    /// Writes what `nixfleet release publish` writes.
    pub(crate) fn publish(&self, folder: &Path) {
        let id = &self.id;
        let write = |path: String, bytes: &[u8]| {
            let path = folder.join(path);
            fs::make_dir(path.parent().expect("it has a folder")).expect("a folder");
            fs::write_atomic(&path, bytes).expect("a file");
        };
        for (host, entry) in &self.entries {
            write(layout::entry(&id.channel, id.seq, host), entry);
        }
        write(layout::release(&id.channel, id.seq), &self.release);
        write(layout::latest(&id.channel), layout::write_latest(id.seq).as_bytes());
    }
}

/// What is asked of a host and has a number above `after`, oldest first, as the database has it; polls are told from memory.
pub(crate) async fn kept_orders(store: &Store, host: &HostName, after: u64) -> Vec<Order> {
    let mut reading = store.reading().await.expect("a connection");
    let (_, asked) = reading.asked(&[host.to_string()]).await.expect("read");
    let orders = asked.into_iter().flat_map(|(_, asked)| asked.orders);
    orders.filter(|order| order.number > after).collect()
}

/// A host that folds events as its agent would, and keeps what it would report.
pub(crate) struct Host {
    pub(crate) name: HostName,
    pub(crate) state: HostState,
    pub(crate) log: Vec<Record>,
    up: u64,
    /// How far its clock is ahead, in hours; behind, if negative.
    ahead_hours: i64,
}

impl Host {
    /// An agent that just started, on a host that runs release 0.
    pub(crate) fn started(name: &str) -> Self {
        Self::started_at(name, 0)
    }

    /// One that follows this channel.
    pub(crate) fn started_in(channel: ChannelName, name: &str) -> Self {
        Self::started_as(channel, name, 0)
    }

    /// One whose clock is so many hours ahead.
    pub(crate) fn started_at(name: &str, ahead_hours: i64) -> Self {
        Self::started_as(channel(), name, ahead_hours)
    }

    fn started_as(channel: ChannelName, name: &str, ahead_hours: i64) -> Self {
        let (state, log) = (HostState::fresh(), Vec::new());
        let mut host = Self { name: host_name(name), state, log, up: 1_000, ahead_hours };
        let runs = system(&host.name, 0);
        let setup = Setup {
            agent: "0.1.0".to_owned(),
            host: host.name.clone(),
            channel,
            source: SourceKind::ControlPlane,
            reboots: Reboots::default(),
        };
        let world = World {
            boot: Some(BootId::new("boot-1")),
            booted: Some(runs.clone()),
            current: Some(runs.clone()),
            profile: Some(runs),
            reboot_needed: Vec::new(),
        };
        host.take(&Event::AgentStarted { setup, world, journal: None, root: None }, None);
        host
    }

    pub(crate) fn take(&mut self, event: &Event, terms: Option<&Terms>) {
        self.up += 1_000;
        let clock = now().get().saturating_add_signed(self.ahead_hours * 3_600_000);
        let at = Now { at: UnixMs::new(clock).expect("a time in range"), up: UpMs(self.up) };
        let context = Context { seed: seed_of(&self.name), terms };
        let advanced = advance(&self.state, event, &context, at).expect("it fits");
        self.state = advanced.next;
        self.log.extend(advanced.records);
    }

    /// It verified a release.
    pub(crate) fn verified(&mut self, documents: &Documents) {
        let terms = &documents.terms[&self.name];
        let (system, resets) = (terms.system.clone(), documents.resets);
        let event = Event::ReleaseVerified { release: documents.id.clone(), system, resets };
        self.take(&event, Some(terms));
    }

    /// It fetched what it verified.
    pub(crate) fn staged(&mut self, documents: &Documents) {
        self.take(&Event::TargetStaged { release: documents.id.clone() }, None);
    }
}
