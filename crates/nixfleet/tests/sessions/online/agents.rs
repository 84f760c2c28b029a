//! Hosts whose agents are played.

use nixfleet::release::open;
use nixfleet::served::Served;
use nixfleet_core::host::retry::seed_of;
use nixfleet_core::host::world::{Reboots, Setup, SourceKind, World};
use nixfleet_core::host::{Context, Event, HostState, Now, Record, Terms, UpMs, advance};
use nixfleet_core::ids::BootId;
use nixfleet_core::model::names::{HostName, ReleaseId, Seq};
use nixfleet_core::model::time::UnixMs;
use nixfleet_core::wire::{EventBatch, Orders};
use nixfleet_sys::clock;
use nixfleet_trust::key::PublicKey;
use rcgen::{CertificateParams, KeyPair, PKCS_ED25519};
use reqwest::{Client, StatusCode};
use serde_json::{Value, json};

use super::control_plane::ControlPlane;
use crate::support::{Session, system};

/// A host with its key, and the agent's log.
pub(crate) struct Agent {
    pub(crate) name: HostName,
    pair: KeyPair,
    state: HostState,
    log: Vec<Record>,
    up: u64,
}

fn now() -> UnixMs {
    UnixMs::new(clock::unix_ms()).expect("a time in range")
}

impl Agent {
    /// A host with a new key.
    pub(crate) fn new(name: &str) -> Self {
        let pair = KeyPair::generate_for(&PKCS_ED25519).expect("randomness");
        Self {
            name: name.parse().expect("a name"),
            pair,
            state: HostState::fresh(),
            log: Vec::new(),
            up: 1_000,
        }
    }

    /// Its key as it stands in `fleet.json`.
    fn key(&self) -> String {
        let spki = rcgen::PublicKeyData::subject_public_key_info(&self.pair);
        let key = PublicKey::from_spki(&spki).expect("a key");
        format!("ssh-ed25519 {}", data_encoding::BASE64.encode(&key.blob()))
    }

    /// It starts, on a system that no release names.
    pub(crate) fn started(&mut self) {
        let runs = Some(system('7', "0").parse().expect("a path"));
        let setup = Setup {
            agent: "0.1.0".to_owned(),
            host: self.name.clone(),
            channel: "stable".parse().expect("a name"),
            source: SourceKind::ControlPlane,
            reboots: Reboots::default(),
        };
        let world = World {
            boot: Some(BootId::new("boot-1")),
            booted: runs.clone(),
            current: runs.clone(),
            profile: runs,
            reboot_needed: Vec::new(),
        };
        self.take(&Event::AgentStarted { setup, world, journal: None, root: None }, None);
    }

    /// It verifies and fetches a release of the session.
    pub(crate) fn staged(&mut self, session: &Session, seq: u64) -> ReleaseId {
        let opened = open(
            &Served::new(session.path("served")),
            &"stable".parse().expect("a name"),
            Seq::new(seq).expect("a number"),
        )
        .expect("a release");
        let release = ReleaseId {
            channel: opened.release.channel.clone(),
            seq: opened.release.seq,
            digest: opened.envelope.digest(),
        };
        let entry = &opened.entries[&self.name];
        let terms = Terms::new(release.clone(), &opened.release, entry).expect("terms");
        let verified =
            Event::ReleaseVerified { release: release.clone(), system: terms.system.clone(), resets: 0 };
        self.take(&verified, Some(&terms));
        self.take(&Event::TargetStaged { release: release.clone() }, None);
        release
    }

    pub(crate) fn take(&mut self, event: &Event, terms: Option<&Terms>) {
        self.up += 1_000;
        let at = Now { at: now(), up: UpMs(self.up) };
        let context = Context { seed: seed_of(&self.name), terms };
        let advanced = advance(&self.state, event, &context, at).expect("it fits");
        self.state = advanced.next;
        self.log.extend(advanced.records);
    }

    fn client(&self, server: &ControlPlane) -> Client {
        let params = CertificateParams::new(vec!["whatever.example".to_owned()]).expect("a name");
        let certificate = params.self_signed(&self.pair).expect("it signs");
        let pem = format!("{}{}", certificate.pem(), self.pair.serialize_pem());
        let authority = reqwest::Certificate::from_pem(server.authority().as_bytes()).expect("PEM");
        let identity = reqwest::Identity::from_pem(pem.as_bytes()).expect("a pair");
        Client::builder().tls_certs_only([authority]).identity(identity).no_proxy().build().expect("a client")
    }

    /// Reports all that happened.
    pub(crate) async fn report(&self, server: &ControlPlane) {
        let batch = serde_json::to_vec(&EventBatch { records: self.log.clone() }).expect("JSON");
        let request = self.client(server).post(format!("{}/v1/agent/events", server.url));
        let response =
            request.header("content-type", "application/json").body(batch).send().await.expect("an answer");
        assert_eq!(response.status(), StatusCode::OK);
    }

    /// It comes although no release names it.
    pub(crate) async fn knock(&self, server: &ControlPlane) {
        let request = self.client(server).get(format!("{}/v1/agent/orders?after=0", server.url));
        assert_eq!(request.send().await.expect("an answer").status(), StatusCode::FORBIDDEN);
    }

    /// What is asked of it.
    pub(crate) async fn orders(&self, server: &ControlPlane) -> Orders {
        let request = self.client(server).get(format!("{}/v1/agent/orders?after=0", server.url));
        let response = request.send().await.expect("an answer");
        serde_json::from_slice(&response.bytes().await.expect("a body")).expect("orders")
    }
}

/// A fleet folder whose release 1 is published for these hosts: the first is the canary.
pub(crate) fn fleet_of(names: &[&str]) -> (Session, Vec<Agent>) {
    let session = Session::new();
    session.done(&["init", "--fleet-id", "example"]);
    let agents: Vec<Agent> = names.iter().map(|name| Agent::new(name)).collect();
    // For the closures of the systems.
    session.describe(&[("web-1", &system('0', "1")), ("web-2", &system('1', "1"))]);
    let hosts: serde_json::Map<String, Value> = agents
        .iter()
        .map(|agent| {
            let host = json!({ "channel": "stable", "system": system('0', "1"), "key": agent.key() });
            (agent.name.to_string(), host)
        })
        .collect();
    let canary = names.first().copied().unwrap_or_default();
    let waves = json!([
        { "name": "canary", "hosts": { "host": canary }, "soak": "1m" },
        { "name": "rest", "soak": "0s" },
    ]);
    let fleet = json!({
        "fleet": "example",
        "channels": { "stable": { "policy": { "waves": waves } } },
        "hosts": hosts,
    });
    session.write("fleet.json", &fleet.to_string());
    session.publish();
    (session, agents)
}

/// The same with a control plane that has the release.
pub(crate) async fn pushed(names: &[&str]) -> (Session, Vec<Agent>, ControlPlane) {
    let (session, agents) = fleet_of(names);
    let server = ControlPlane::start(&session).await;
    server.done(&session, &["release", "push", "--channel", "stable", "--yes"]).await;
    (session, agents, server)
}
