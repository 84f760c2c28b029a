use super::*;
use crate::probes::http;
use nixfleet_core::model::names::Sha256;
use nixfleet_core::model::probe::{HttpProbe, Redirects, StatusRange};
use rustls::ServerConfig;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

/// Made with `openssl` for a hundred years: an authority, a server `localhost` that it signed, and the server's key.
const AUTHORITY: &[u8] = include_bytes!("../../../tests/fixtures/tls/ca.der");
const SERVER: &[u8] = include_bytes!("../../../tests/fixtures/tls/server.der");
const SERVER_KEY: &[u8] = include_bytes!("../../../tests/fixtures/tls/server.key.der");
/// `openssl pkey -pubout -outform DER | sha256sum` of that key.
const SERVER_PIN: &str = "sha256:baf534c2c76d134aef996b0345e6283a2a7b2a9d0e1dfed1b0c1e29ffdd8b948";

/// A server that answers every connection with a page; its port.
async fn server() -> u16 {
    server_saying("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello".to_owned()).await
}

/// A server that answers every connection with the same; its port.
async fn server_saying(answer: String) -> u16 {
    let key = PrivatePkcs8KeyDer::from(SERVER_KEY.to_vec());
    let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![SERVER.to_vec().into()], key.into())
        .expect("a certificate and its key");
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("bound").port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let Ok(mut stream) = acceptor.accept(stream).await else { continue };
            let _ = stream.read(&mut [0; 1024]).await;
            let _ = stream.write_all(answer.as_bytes()).await;
            let _ = stream.shutdown().await;
        }
    });
    port
}

async fn shaken(port: u16, host: &str, config: Result<ClientConfig, String>) -> Result<(), String> {
    let stream = TcpStream::connect(("127.0.0.1", port)).await.expect("it listens");
    handshake(stream, host, config.expect("a configuration")).await.map(drop)
}

fn roots(certificates: &[&[u8]]) -> RootCertStore {
    let mut roots = RootCertStore::empty();
    for certificate in certificates {
        roots.add(CertificateDer::from(certificate.to_vec())).expect("an authority");
    }
    roots
}

#[tokio::test]
async fn a_server_is_believed_by_its_authority_and_under_its_name_only() {
    let port = server().await;
    assert_eq!(shaken(port, "localhost", by_roots(roots(&[AUTHORITY]))).await, Ok(()));
    let other_name = shaken(port, "example.org", by_roots(roots(&[AUTHORITY]))).await;
    assert!(other_name.as_ref().is_err_and(|said| said.starts_with("TLS: ")), "{other_name:?}");
    let nobody = shaken(port, "localhost", by_roots(roots(&[]))).await;
    assert!(nobody.as_ref().is_err_and(|said| said.contains("UnknownIssuer")), "{nobody:?}");
}

#[tokio::test]
async fn a_pinned_key_is_believed_under_any_name_and_no_other_key_is() {
    let port = server().await;
    let pin: Sha256 = SERVER_PIN.parse().expect("a digest");
    assert_eq!(shaken(port, "localhost", Ok(pinned(*pin.bytes()))).await, Ok(()));
    assert_eq!(shaken(port, "127.0.0.1", Ok(pinned(*pin.bytes()))).await, Ok(()));
    let mut other = *pin.bytes();
    other[31] ^= 1;
    assert!(shaken(port, "localhost", Ok(pinned(other))).await.is_err());
}

#[tokio::test]
async fn an_https_probe_goes_through_tls_and_the_hosts_authorities_do_not_know_this_server() {
    let port = server().await;
    let url = format!("https://localhost:{port}/");
    let pinned = TlsTrust::PinnedKey(SERVER_PIN.parse().expect("a digest"));
    let mut got = http::get(&url, &pinned, Redirects::Refuse).await.expect("it answers");
    assert_eq!(got.status.as_u16(), 200);
    assert_eq!(got.body(100).await.expect("a body").bytes, b"hello");
    let Err(said) = http::get(&url, &TlsTrust::SystemRoots, Redirects::Refuse).await else {
        panic!("nobody vouches for it")
    };
    assert!(said.contains("UnknownIssuer") || said.contains("no certificate authorities"), "{said}");
}

#[tokio::test]
async fn a_server_that_speaks_no_tls_is_a_failure() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("bound").port();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.expect("a connection");
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
    });
    let config = by_roots(roots(&[AUTHORITY]));
    assert!(shaken(port, "localhost", config).await.is_err());
}

/// A certificate as people keep it.
fn pem(certificate: &[u8]) -> String {
    let lines = data_encoding::BASE64.encode(certificate);
    format!("-----BEGIN CERTIFICATE-----\n{lines}\n-----END CERTIFICATE-----\n")
}

/// A probe of this server that believes the authorities in `file`.
fn by_file(port: u16, host: &str, file: &Path, redirects: Redirects) -> HttpProbe {
    let tls = TlsTrust::CaFile(file.to_str().expect("UTF-8").to_owned());
    let url = format!("https://{host}:{port}/");
    HttpProbe { url, status: StatusRange::default(), body_contains: None, tls, redirects }
}

#[tokio::test]
async fn a_file_of_authorities_vouches_for_its_servers_and_nobody_else_does() {
    let port = server().await;
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("ca.pem");
    fs::write_atomic(&file, format!("# ours\n{}", pem(AUTHORITY)).as_bytes()).expect("written");
    let asked = http::ask(&by_file(port, "localhost", &file, Redirects::Refuse)).await;
    assert_eq!(asked, Ok("status 200 OK".to_owned()));
    let other_name = http::ask(&by_file(port, "127.0.0.1", &file, Redirects::Refuse)).await;
    assert!(other_name.as_ref().is_err_and(|said| said.starts_with("TLS: ")), "{other_name:?}");
    // The file is read for each question: a switch may have brought another.
    fs::write_atomic(&file, pem(&stranger()).as_bytes()).expect("written");
    let stranger = http::ask(&by_file(port, "localhost", &file, Redirects::Refuse)).await;
    assert!(stranger.as_ref().is_err_and(|said| said.contains("UnknownIssuer")), "{stranger:?}");
}

/// An authority that has signed nothing.
fn stranger() -> Vec<u8> {
    let key = rcgen::KeyPair::generate().expect("a key");
    let certificate =
        rcgen::CertificateParams::new(vec!["ca.example".to_owned()]).and_then(|it| it.self_signed(&key));
    certificate.expect("a certificate").der().to_vec()
}

#[tokio::test]
async fn a_file_of_authorities_that_is_of_no_use_is_a_failure_that_names_it() {
    let port = server().await;
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("ca.pem");
    let asked =
        async || http::ask(&by_file(port, "localhost", &file, Redirects::Refuse)).await.expect_err("no use");
    let mut said = vec![asked().await];
    let torn = pem(AUTHORITY);
    let not_base64 = "-----BEGIN CERTIFICATE-----\n****\n-----END CERTIFICATE-----\n".to_owned();
    let beyond = usize::try_from(CA_BYTES_MAX).expect("it fits") + 1;
    for content in
        [String::new(), torn[..torn.len() / 2].to_owned(), not_base64, pem(b"noise"), " ".repeat(beyond)]
    {
        fs::write_atomic(&file, content.as_bytes()).expect("written");
        said.push(asked().await);
    }
    std::fs::remove_file(&file).expect("removed");
    std::fs::create_dir(&file).expect("a folder");
    said.push(asked().await);
    let begins = format!("the probe's CA file {} is of no use: ", file.display());
    assert!(said.iter().all(|said| said.starts_with(&begins)), "{said:#?}");
    assert_eq!(said.len(), 7);
}

#[tokio::test]
async fn a_redirect_is_followed_to_tls_and_never_from_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("ca.pem");
    fs::write_atomic(&file, pem(AUTHORITY).as_bytes()).expect("written");
    let sends_to =
        |to: String| format!("HTTP/1.1 301 Moved Permanently\r\nlocation: {to}\r\ncontent-length: 0\r\n\r\n");
    let well = server().await;
    let within = server_saying(sends_to(format!("https://localhost:{well}/ready"))).await;
    let asked = http::ask(&by_file(within, "localhost", &file, Redirects::Follow)).await;
    assert_eq!(asked, Ok("status 200 OK".to_owned()));
    // The same authorities count for whoever is asked next.
    let stranger = server_saying(sends_to(format!("https://127.0.0.1:{well}/"))).await;
    let asked = http::ask(&by_file(stranger, "localhost", &file, Redirects::Follow)).await;
    assert!(asked.as_ref().is_err_and(|said| said.starts_with("TLS: ")), "{asked:?}");
    let down = server_saying(sends_to("http://localhost:1/".to_owned())).await;
    let asked = http::ask(&by_file(down, "localhost", &file, Redirects::Follow)).await;
    let said = "a redirect goes from https to http://localhost:1/, without TLS; it is not followed";
    assert_eq!(asked, Err(said.to_owned()));
}
