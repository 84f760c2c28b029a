//! Who this host is to a control plane: a certificate that the host's own key signed for itself.
//!
//! Nothing in the certificate but the key means anything: the control plane lets in whoever has the private half of a key
//! that a verified release names. So it needs no authority, no renewal and no dates, and is made anew at each start.

use std::fmt;

use nixfleet_trust::check::entry::HostIdentity;
use nixfleet_trust::sign::Signer;
use nixfleet_trust::sign::private_key::{PrivateKey, PrivateKeyRefused};
use rcgen::{CertificateParams, KeyPair};
use reqwest::Identity;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

/// The host's key with its certificate. It does not show the key.
pub struct ClientIdentity {
    pem: Vec<u8>,
    certificate: CertificateDer<'static>,
    key: PrivatePkcs8KeyDer<'static>,
}

impl fmt::Debug for ClientIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClientIdentity")
    }
}

/// Why there is no identity.
#[derive(Debug, thiserror::Error)]
pub enum NoIdentity {
    /// The private key cannot be read.
    #[error(transparent)]
    Key(#[from] PrivateKeyRefused),
    /// It is the private half of another key.
    #[error("it is not the private half of {0}, which is the host's key")]
    OtherKey(nixfleet_trust::key::KeyId),
    /// The certificate could not be made.
    #[error("no certificate can be made with it")]
    Certificate(#[source] rcgen::Error),
    /// The library does not give it away.
    #[error("it cannot be handed to TLS")]
    NotForTls,
}

impl ClientIdentity {
    /// From the text of the private key of `me`.
    pub fn new(text: &str, me: &HostIdentity) -> Result<Self, NoIdentity> {
        let private = PrivateKey::read(text)?;
        if *private.public_key() != me.key {
            return Err(NoIdentity::OtherKey(me.key.id()));
        }
        let der = private.to_pkcs8().map_err(|_| NoIdentity::NotForTls)?;
        let key = PrivatePkcs8KeyDer::from(der.to_vec());
        let pair = KeyPair::try_from(&key).map_err(NoIdentity::Certificate)?;
        // The name is for people who look at a connection.
        let params = CertificateParams::new(vec![me.name.to_string()]).map_err(NoIdentity::Certificate)?;
        let certificate = params.self_signed(&pair).map_err(NoIdentity::Certificate)?;
        let pem = format!("{}{}", certificate.pem(), pair.serialize_pem()).into_bytes();
        Ok(Self { pem, certificate: certificate.der().clone(), key })
    }

    pub(super) fn for_reqwest(&self) -> Result<Identity, reqwest::Error> {
        Identity::from_pem(&self.pem)
    }

    pub(super) fn chain(&self) -> Vec<CertificateDer<'static>> {
        vec![self.certificate.clone()]
    }

    pub(super) fn key(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::Pkcs8(self.key.clone_key())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_of_either_kind_makes_an_identity_and_another_hosts_key_does_not() {
        for private in [PrivateKey::generate(), PrivateKey::generate_p256()] {
            let private = private.expect("randomness");
            let text = private.to_openssh("host").expect("randomness");
            let me = |key: &PrivateKey| HostIdentity {
                name: "web-1".parse().expect("a name"),
                key: key.public_key().clone(),
            };
            let identity = ClientIdentity::new(&text, &me(&private)).expect("an identity");
            identity.for_reqwest().expect("a pair");
            let other = PrivateKey::generate().expect("randomness");
            assert!(matches!(ClientIdentity::new(&text, &me(&other)), Err(NoIdentity::OtherKey(_))));
            assert_eq!(format!("{identity:?}"), "ClientIdentity");
        }
        let me = HostIdentity {
            name: "web-1".parse().expect("a name"),
            key: PrivateKey::generate().expect("randomness").public_key().clone(),
        };
        assert!(matches!(ClientIdentity::new("", &me), Err(NoIdentity::Key(_))));
    }
}
