//! How a server proves who it is: by the authorities that the host trusts, by one of its own, or by its very key.
//!
//! Releases do not need it, since they are signed; it keeps others from learning what a host asks for, and from hiding
//! releases on the way. A pinned key counts alone, without names and dates: it is the strongest of the three, and it also
//! works on a host whose clock is wrong.

use std::collections::BTreeSet;

use nixfleet_sys::pin;
use reqwest::{Certificate, ClientBuilder};
use rustls::ClientConfig;

use super::identity::ClientIdentity;
pub use nixfleet_sys::pin::{NotAPin, Pin};

/// Whom a server must be vouched for by.
#[derive(Debug, Clone, Default)]
pub enum ServerTrust {
    /// The certificate authorities of this host.
    #[default]
    Host,
    /// These authorities and no other.
    Only(Vec<Certificate>),
    /// Nobody: it has one of these keys.
    Pinned(BTreeSet<Pin>),
}

impl ServerTrust {
    /// Puts it into a client, with who we are.
    pub(super) fn apply(
        &self,
        builder: ClientBuilder,
        identity: Option<&ClientIdentity>,
        is_https: bool,
    ) -> Result<ClientBuilder, reqwest::Error> {
        let builder = match self {
            // A client that never speaks TLS need not read and keep the host's certificates.
            Self::Host if !is_https => {
                return Ok(builder.tls_backend_preconfigured(pinning(BTreeSet::new(), None)));
            }
            Self::Pinned(pins) => {
                return Ok(builder.tls_backend_preconfigured(pinning(pins.clone(), identity)));
            }
            Self::Host => builder,
            Self::Only(authorities) => builder.tls_certs_only(authorities.iter().cloned()),
        };
        match identity {
            None => Ok(builder),
            Some(identity) => Ok(builder.identity(identity.for_reqwest()?)),
        }
    }
}

/// The configuration of TLS that takes servers with this key alone, given by its SHA-256: for probes, too.
pub(crate) fn pinned(key: [u8; 32]) -> ClientConfig {
    pinning(BTreeSet::from([Pin::of_digest(key)]), None)
}

/// The configuration of TLS that takes servers with one of `pins`; with none it takes no server.
fn pinning(pins: BTreeSet<Pin>, identity: Option<&ClientIdentity>) -> ClientConfig {
    let builder = pin::trusting(pins);
    match identity {
        None => builder.with_no_client_auth(),
        Some(identity) => builder
            .with_client_auth_cert(identity.chain(), identity.key())
            .expect("the pair was used when it was made"),
    }
}
