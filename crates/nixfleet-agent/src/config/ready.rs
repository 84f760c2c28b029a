//! From a configuration to what the worker needs: the files that it names, read.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use nixfleet_core::model::time::UnixMs;
use nixfleet_sys::fs::{self, FsError};
use nixfleet_sys::{clock, random};
use nixfleet_trust::check::entry::HostIdentity;
use nixfleet_trust::envelope::ENVELOPE_SIZE_MAX;
use nixfleet_trust::key::{KeyRefused, KeyType, PublicKey};
use nixfleet_trust::trust::{SavedTrust, Trust, TrustUnreadable};
use reqwest::Certificate;
use zeroize::Zeroizing;

use super::Config;
use crate::source::Following;
use crate::source::look::Looker;
use crate::source::place::Place;
use crate::source::web::identity::{ClientIdentity, NoIdentity};
use crate::source::web::tls::{Pin, ServerTrust};
use crate::source::web::{Limits, Proxies};

/// The largest key file that is read, in bytes; a line with a long comment has some hundred.
const KEY_BYTES_MAX: u64 = 8 * 1024;
/// The largest file of authorities, in bytes: all that browsers know take some 250 KB.
pub const CA_BYTES_MAX: u64 = 1024 * 1024;

/// How a web server proves who it is, by the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServerChoice {
    /// By the authorities of this host.
    Host,
    /// By those in this file.
    CaFile(PathBuf),
    /// By having one of these keys.
    Pins(BTreeSet<Pin>),
}

/// Why a file that the configuration names is of no use.
#[derive(Debug, thiserror::Error)]
pub enum NotReady {
    /// It cannot be read, or not trusted.
    #[error(transparent)]
    File(FsError),
    /// The host's key is none.
    #[error("`{}` has no public key of this host", path.display())]
    HostKey {
        /// The file.
        path: PathBuf,
        /// Why.
        source: KeyRefused,
    },
    /// The host's key is of a kind that hosts cannot have.
    #[error("`{}` has a key that wants a touch, which a host cannot give", .0.display())]
    HostKeyWantsTouch(PathBuf),
    /// The private half of the host's key is not where it should be.
    #[error("`{}` does not end with `.pub`, so it cannot be told where its private half is", .0.display())]
    NoPrivateHalf(PathBuf),
    /// The private half of the host's key is of no use.
    #[error("`{}` does not let this host prove who it is", path.display())]
    Identity {
        /// The file.
        path: PathBuf,
        /// Why.
        source: NoIdentity,
    },
    /// There is no certificate in the file of authorities.
    #[error("`{}` has no certificate in PEM form", .0.display())]
    NoAuthority(PathBuf),
    /// What this host trusts cannot be told. It starts nothing until a person has looked; a state that cannot be read
    /// is never taken for none.
    #[error("what this host trusts cannot be told")]
    Trust(#[source] TrustUnreadable),
}

impl NotReady {
    /// Whether only a person, or another system, changes it. What other programs make may be on its way: at its first boot
    /// a host makes its keys while the agent starts.
    pub fn is_lasting(&self) -> bool {
        match self {
            Self::File(error) => error.is_untrusted(),
            Self::HostKey { .. } | Self::Identity { .. } | Self::NoAuthority(_) => false,
            Self::HostKeyWantsTouch(_) | Self::NoPrivateHalf(_) | Self::Trust(_) => true,
        }
    }
}

impl Config {
    /// The files that it names and an agent reads once, when it begins to follow: another process has to read a change.
    pub fn files(&self) -> Vec<PathBuf> {
        let Self {
            root,
            source: _,
            server,
            channel: _,
            host: _,
            host_key,
            state_dir: _,
            poll: _,
            reboots: _,
        } = self;
        let authorities = match server {
            ServerChoice::CaFile(file) => Some(file.clone()),
            ServerChoice::Host | ServerChoice::Pins(_) => None,
        };
        let private = self.proves_itself().then(|| self.private_half()).flatten();
        [root.clone(), host_key.clone()].into_iter().chain(authorities).chain(private).collect()
    }

    /// Whether this host proves to its source who it is: only to a control plane.
    fn proves_itself(&self) -> bool {
        match &self.source {
            Place::Folder(_) | Place::Web(_) => false,
            Place::ControlPlane(_) => true,
        }
    }

    /// Where the private half of the host's key lies: beside the public one, as OpenSSH keeps them. `None` if the name of
    /// the public one does not tell.
    pub fn private_half(&self) -> Option<PathBuf> {
        let named = self.host_key.extension().is_some_and(|extension| extension == "pub");
        named.then(|| self.host_key.with_extension(""))
    }

    /// Who this host is: its name, and the key of which only the public half is read.
    pub fn identity(&self) -> Result<HostIdentity, NotReady> {
        let bytes = fs::read_bounded(&self.host_key, KEY_BYTES_MAX).map_err(NotReady::File)?;
        let path = || self.host_key.clone();
        let text = String::from_utf8_lossy(&bytes);
        let key = PublicKey::read(&text).map_err(|source| NotReady::HostKey { path: path(), source })?;
        match key.key_type() {
            KeyType::Ed25519 | KeyType::P256 => Ok(HostIdentity { name: self.host.clone(), key }),
            KeyType::SkEd25519 | KeyType::SkP256 => Err(NotReady::HostKeyWantsTouch(path())),
        }
    }

    /// What this host trusts: from the root document of the configuration, and from what was saved. `saved` is `None`
    /// only if there is no state at all.
    pub fn trust(&self, saved: Option<SavedTrust>) -> Result<Trust, NotReady> {
        let size = u64::try_from(ENVELOPE_SIZE_MAX).unwrap_or(u64::MAX);
        let root = fs::read_guarded(&self.root, size).map_err(NotReady::File)?;
        match saved {
            None => Trust::begin(&root),
            Some(saved) => Trust::resume(&root, saved),
        }
        .map_err(NotReady::Trust)
    }

    /// How the server proves who it is.
    pub fn server_trust(&self) -> Result<ServerTrust, NotReady> {
        match &self.server {
            ServerChoice::Host => Ok(ServerTrust::Host),
            ServerChoice::Pins(pins) => Ok(ServerTrust::Pinned(pins.clone())),
            ServerChoice::CaFile(path) => {
                let pem = fs::read_guarded(path, CA_BYTES_MAX).map_err(NotReady::File)?;
                let authorities = Certificate::from_pem_bundle(&pem).unwrap_or_default();
                if authorities.is_empty() {
                    return Err(NotReady::NoAuthority(path.clone()));
                }
                Ok(ServerTrust::Only(authorities))
            }
        }
    }

    /// How this host proves who it is: only to a control plane, with the private half of its key.
    pub fn client_identity(&self) -> Result<Option<Arc<ClientIdentity>>, NotReady> {
        if !self.proves_itself() {
            return Ok(None);
        }
        let path = self.private_half().ok_or_else(|| NotReady::NoPrivateHalf(self.host_key.clone()))?;
        let bytes = Zeroizing::new(fs::read_guarded(&path, KEY_BYTES_MAX).map_err(NotReady::File)?);
        let text = Zeroizing::new(String::from_utf8_lossy(&bytes).into_owned());
        let identity = ClientIdentity::new(&text, &self.identity()?);
        identity
            .map(|identity| Some(Arc::new(identity)))
            .map_err(|source| NotReady::Identity { path, source })
    }

    /// What the worker follows, by this host's own clock.
    pub fn following(&self) -> Result<Following, NotReady> {
        Ok(Following {
            place: self.source.clone(),
            server: self.server_trust()?,
            identity: self.client_identity()?,
            proxies: Proxies::FromEnvironment,
            limits: Limits::default(),
            looker: Looker { channel: self.channel.clone(), me: self.identity()? },
            poll: self.poll,
            clock: Arc::new(now),
            random: Arc::new(random::number),
            look_at: Arc::new(|time| time),
        })
    }
}

/// The host's clock.
pub fn now() -> UnixMs {
    UnixMs::new(clock::unix_ms()).unwrap_or(UnixMs::MAX)
}
