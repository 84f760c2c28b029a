//! A certificate for a server that nobody else vouches for: agents and people pin its key.

use std::path::PathBuf;

use nixfleet_sys::fs::{self, FsError};
use nixfleet_sys::pin::Pin;
use rcgen::{CertificateParams, KeyPair, PublicKeyData};

use crate::config::Config;

/// Why none was made.
#[derive(Debug, thiserror::Error)]
pub enum NotMade {
    /// There is one.
    #[error("`{}` is there already, and agents may have pinned it", .0.display())]
    Exists(PathBuf),
    /// A file could not be written.
    #[error(transparent)]
    File(#[from] FsError),
    /// No key or certificate could be made, or a name is none.
    #[error("no certificate can be made")]
    Certificate(#[from] rcgen::Error),
}

/// Makes a key and a certificate for these names and addresses, in the files that `config` names. Returns the pin of the
/// key, as an agent's `pins` takes it.
pub fn make(config: &Config, names: Vec<String>) -> Result<Pin, NotMade> {
    for path in [&config.certificate, &config.certificate_key] {
        if path.exists() {
            return Err(NotMade::Exists(path.clone()));
        }
    }
    let pair = KeyPair::generate()?;
    let certificate = CertificateParams::new(names)?.self_signed(&pair)?;
    if config.certificate == config.certificate_key {
        let both = format!("{}{}", certificate.pem(), pair.serialize_pem());
        fs::write_atomic(&config.certificate, both.as_bytes())?;
    } else {
        fs::write_atomic(&config.certificate_key, pair.serialize_pem().as_bytes())?;
        fs::write_atomic_mode(&config.certificate, certificate.pem().as_bytes(), 0o644)?;
    }
    Ok(Pin::of(&pair.subject_public_key_info()))
}
