//! TLS around a connection: the one place that says whom a server is believed by (lesson 22).

use std::path::Path;
use std::sync::Arc;

use nixfleet_core::model::probe::TlsTrust;
use nixfleet_sys::fs;
use nixfleet_sys::text::chain;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::config::ready::CA_BYTES_MAX;
use crate::source::web::tls::pinned;

/// The connection with TLS 1.2 or 1.3 around it; the server has shown that it is `host`, or has the pinned key.
pub(super) async fn wrap(
    stream: TcpStream,
    host: &str,
    trust: &TlsTrust,
) -> Result<TlsStream<TcpStream>, String> {
    let config = match trust {
        TlsTrust::SystemRoots => by_roots(system_roots().await?)?,
        TlsTrust::PinnedKey(key) => pinned(*key.bytes()),
        TlsTrust::CaFile(path) => by_roots(authorities_in(Path::new(path)).await?)?,
    };
    handshake(stream, host, config).await
}

async fn handshake(
    stream: TcpStream,
    host: &str,
    config: ClientConfig,
) -> Result<TlsStream<TcpStream>, String> {
    let name = ServerName::try_from(host.to_owned()).map_err(|_| "the host has no name that TLS knows")?;
    let connector = TlsConnector::from(Arc::new(config));
    connector.connect(name, stream).await.map_err(|error| format!("TLS: {error}"))
}

/// The host's certificate authorities, read anew for every question: a switch may have brought others.
async fn system_roots() -> Result<RootCertStore, String> {
    // Some 150 certificates from one file, or as many files.
    let read = tokio::task::spawn_blocking(rustls_native_certs::load_native_certs).await;
    let read = read.map_err(|error| error.to_string())?;
    let mut roots = RootCertStore::empty();
    // One that cannot be read is believed by nobody, and does not spoil the others.
    let (added, _) = roots.add_parsable_certificates(read.certs);
    if added > 0 {
        return Ok(roots);
    }
    let why = read.errors.first().map(|error| format!(": {error}")).unwrap_or_default();
    Err(format!("this host has no certificate authorities{why}"))
}

/// The authorities in a file, read anew for every question as well.
async fn authorities_in(path: &Path) -> Result<RootCertStore, String> {
    let path = path.to_owned();
    let read = tokio::task::spawn_blocking(move || read_authorities(&path)).await;
    read.map_err(|error| error.to_string())?
}

/// A file of whichever owner: services that are their own authority keep its certificate under their own user, and who
/// runs the service says whether it is well anyway. What a host may run is not decided here.
fn read_authorities(path: &Path) -> Result<RootCertStore, String> {
    let refused = |why: &str| format!("the probe's CA file {} is of no use: {why}", path.display());
    let pem = fs::read_start(path, CA_BYTES_MAX).map_err(|error| refused(&chain(&error)))?;
    if pem.len() as u64 > CA_BYTES_MAX {
        return Err(refused(&format!("it is larger than {CA_BYTES_MAX} bytes")));
    }
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let certificate = certificate.map_err(|error| refused(&error.to_string()))?;
        roots.add(certificate).map_err(|error| refused(&error.to_string()))?;
    }
    if roots.is_empty() {
        return Err(refused("it has no certificate in PEM form"));
    }
    Ok(roots)
}

fn by_roots(roots: RootCertStore) -> Result<ClientConfig, String> {
    let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

#[cfg(test)]
mod tests;
