//! From a configuration to what the server needs: the files that it names, read.

use std::path::{Path, PathBuf};

use nixfleet_core::model::time::UnixMs;
use nixfleet_sys::clock;
use nixfleet_sys::fs::{self, FsError};
use nixfleet_trust::envelope::ENVELOPE_SIZE_MAX;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::Config;

/// The largest certificate or key file, in bytes; a chain of four has some 8 KB.
const PEM_BYTES_MAX: u64 = 256 * 1024;

/// Why a file that the configuration names is of no use.
#[derive(Debug, thiserror::Error)]
pub enum NotReady {
    /// It cannot be read, or others could have written it.
    #[error(transparent)]
    File(FsError),
    /// It has no certificate.
    #[error("`{}` has no certificate in PEM form", .0.display())]
    NoCertificate(PathBuf),
    /// It has no private key.
    #[error("`{}` has no private key in PEM form", .0.display())]
    NoKey(PathBuf),
}

/// Who the server is: its certificate chain and the private key.
#[derive(Debug)]
pub struct Identity {
    /// The chain, its own certificate first.
    pub chain: Vec<CertificateDer<'static>>,
    /// The key.
    pub key: PrivateKeyDer<'static>,
}

impl Config {
    /// The envelope of the first root.
    pub fn first_root(&self) -> Result<Vec<u8>, NotReady> {
        let size = u64::try_from(ENVELOPE_SIZE_MAX).unwrap_or(u64::MAX);
        fs::read_guarded(&self.root, size).map_err(NotReady::File)
    }

    /// Who the server is.
    pub fn identity(&self) -> Result<Identity, NotReady> {
        let pem = read(&self.certificate)?;
        let chain: Vec<_> = CertificateDer::pem_slice_iter(&pem).filter_map(Result::ok).collect();
        if chain.is_empty() {
            return Err(NotReady::NoCertificate(self.certificate.clone()));
        }
        let pem = read(&self.certificate_key)?;
        let key =
            PrivateKeyDer::from_pem_slice(&pem).map_err(|_| NotReady::NoKey(self.certificate_key.clone()))?;
        Ok(Identity { chain, key })
    }
}

fn read(path: &Path) -> Result<Vec<u8>, NotReady> {
    fs::read_bounded(path, PEM_BYTES_MAX).map_err(NotReady::File)
}

/// The clock.
pub fn now() -> UnixMs {
    UnixMs::new(clock::unix_ms()).unwrap_or(UnixMs::MAX)
}
