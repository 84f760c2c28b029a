//! What must hold for any bytes that this server reads: of strangers, of people's programs, and of its owner. Called by the replay
//! of the corpora and by the fuzz targets.
//!
//! Tokens are no input of this kind: a token is hashed as it comes, and nothing in it is read. What agents send is described in
//! `nixfleet-agent`, which writes it.

use std::fmt::Debug;
use std::path::Path;

use nixfleet_control_plane::config::Config;
use nixfleet_control_plane::releases::Draft;
use nixfleet_control_plane::releases::stream::Push;
use nixfleet_control_plane::store::tokens::Role;
use nixfleet_control_plane::tls;
use nixfleet_core::model::names::{ChannelName, HostName};
use nixfleet_core::model::time::UnixMs;
use nixfleet_core::wire::people::{Because, HoldBody};
use nixfleet_core::wire::rollouts::{ApproveBody, PlanAsked};
use nixfleet_trust::key::PublicKey;
use nixfleet_trust::trust::Trust;
use rustls::pki_types::CertificateDer;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// A parser by the name of its corpus.
pub(crate) type Input = (&'static str, fn(&[u8]));

/// Every parser of this crate.
pub(crate) const ALL: [Input; 4] = [
    ("server-config", server_config),
    ("client-certificate", client_certificate),
    ("push", push),
    ("requests", requests),
];

/// The first root of the golden vectors, and a time at which all of them count.
const ROOT: &[u8] = include_bytes!("../../../nixfleet-trust/tests/golden/root-1.json");
const CLOCK_MS: u64 = 1_793_923_200_000;

/// The server's configuration: it is whole, or each fault is one line.
pub(crate) fn server_config(bytes: &[u8]) {
    let Err(faults) = Config::read(&String::from_utf8_lossy(bytes)) else { return };
    assert!(!faults.is_empty(), "a refusal has a reason");
    for fault in faults {
        let shown = fault.shown(Path::new("f.toml"));
        assert!(!shown.chars().any(char::is_control), "{shown:?}");
    }
}

/// The certificate of whoever connects, before anybody has proven anything: a key in it is one that comes back from each of its
/// forms.
pub(crate) fn client_certificate(bytes: &[u8]) {
    let Some(key) = tls::key_of(&CertificateDer::from(bytes)) else { return };
    let spki = key.spki().expect("it came in this form");
    assert_eq!(PublicKey::from_spki(&spki).expect("its own form"), key);
    assert_eq!(PublicKey::from_blob(&key.blob()).expect("its own form"), key);
}

/// A push, which means the same in whatever pieces it arrives. The first byte says where it is cut.
pub(crate) fn push(bytes: &[u8]) {
    let Some((cut, bytes)) = bytes.split_first() else { return };
    let whole = taken(&[bytes]);
    let (head, tail) = bytes.split_at(usize::from(*cut).min(bytes.len()));
    assert_eq!(taken(&[head, tail]), whole);
    let small: Vec<&[u8]> = bytes.chunks(usize::from(*cut).max(1)).collect();
    assert_eq!(taken(&small), whole);
}

/// What became of a push in these pieces.
fn taken(pieces: &[&[u8]]) -> String {
    let trust = Trust::begin(ROOT).expect("the golden root");
    let mut push = Push::new(Draft::of(trust, UnixMs::new(CLOCK_MS).expect("in range")));
    let fed = pieces.iter().try_for_each(|piece| push.piece(piece));
    format!("{:?}", fed.and_then(|()| push.end()))
}

/// Bodies, and names in paths: what is understood comes back as it was written.
pub(crate) fn requests(bytes: &[u8]) {
    comes_back::<Because>(bytes);
    comes_back::<HoldBody>(bytes);
    comes_back::<ApproveBody>(bytes);
    comes_back::<PlanAsked>(bytes);
    let text = String::from_utf8_lossy(bytes);
    if let Ok(host) = text.parse::<HostName>() {
        assert_eq!(host.to_string(), text);
    }
    if let Ok(channel) = text.parse::<ChannelName>() {
        assert_eq!(channel.to_string(), text);
    }
    if let Ok(role) = text.parse::<Role>() {
        assert_eq!(role.to_string(), text);
    }
}

fn comes_back<T: DeserializeOwned + Serialize + PartialEq + Debug>(bytes: &[u8]) {
    if let Ok(read) = serde_json::from_slice::<T>(bytes) {
        let written = serde_json::to_vec(&read).expect("texts and numbers are always JSON");
        assert_eq!(serde_json::from_slice::<T>(&written).expect("it was written by us"), read);
    }
}
