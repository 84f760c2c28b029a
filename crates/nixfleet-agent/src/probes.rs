//! What is asked of a host before a trial is committed. A probe that did not run has not passed (invariant 9).
//!
//! Every question has a deadline and opens a fresh connection; evidence is a short printable text. Called by the
//! confirmation of an activation; knows nothing of it.

use std::time::Duration;

use http_body_util::Empty;
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use nixfleet_core::activation::record::Probe;
use nixfleet_sys::exec::{Cmd, ExecError};
use nixfleet_sys::text;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::activation::backend::ActivationBackend;

/// How long one question may take: a service that needs longer to say that it is well is not.
pub const PROBE_DEADLINE: Duration = Duration::from_secs(5);
/// How much of a program's output is kept as evidence.
const EVIDENCE_BYTES: usize = 400;

/// Asks once. `Err` carries the evidence.
pub async fn ask<B: ActivationBackend>(backend: &B, probe: &Probe) -> Result<(), String> {
    match probe {
        Probe::Tcp { address } => connect(address).await.map(drop),
        Probe::Http { url } => timeout(PROBE_DEADLINE, http(url)).await.unwrap_or_else(|_| Err(too_slow())),
        Probe::Exec { argv } => exec(argv).await,
        Probe::Unit { unit } => {
            if backend.unit_is_active(unit).await {
                Ok(())
            } else {
                Err("it is not active".to_owned())
            }
        }
    }
}

fn too_slow() -> String {
    format!("no answer within {} s", PROBE_DEADLINE.as_secs())
}

/// A fresh connection to `host:port`.
pub async fn connect(address: &str) -> Result<TcpStream, String> {
    match timeout(PROBE_DEADLINE, TcpStream::connect(address)).await {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(too_slow()),
    }
}

async fn http(url: &str) -> Result<(), String> {
    let uri: hyper::Uri = url.parse().map_err(|_| "the URL cannot be read".to_owned())?;
    let authority = uri.authority().ok_or("the URL names no host")?.clone();
    let port = authority.port_u16().unwrap_or(80);
    let stream = connect(&format!("{}:{port}", authority.host())).await?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| error.to_string())?;
    let request = hyper::Request::get(uri.path_and_query().map_or("/", |path| path.as_str()))
        .header(hyper::header::HOST, authority.as_str())
        .header(hyper::header::CONNECTION, "close")
        .body(Empty::<Bytes>::new())
        .map_err(|error| error.to_string())?;
    // The connection has to be driven while we wait; it ends with us, whatever the other side does.
    let driver = tokio::spawn(async move { drop(connection.await) });
    let response = sender.send_request(request).await.map_err(|error| error.to_string());
    driver.abort();
    let response = response?;
    let status = response.status();
    if status.is_success() || status.is_redirection() { Ok(()) } else { Err(format!("status {status}")) }
}

async fn exec(argv: &[String]) -> Result<(), String> {
    let Some((program, rest)) = argv.split_first() else { return Err("no program".to_owned()) };
    // The whole process group ends at the deadline (lesson 9).
    let cmd = Cmd::new(program)
        .args(rest)
        .deadline(PROBE_DEADLINE)
        .env("PATH", "/run/current-system/sw/bin:/usr/bin:/bin");
    match cmd.run().await {
        Ok(finished) if finished.ended.code() == Some(0) => Ok(()),
        Ok(finished) => {
            let said = text::tail(&finished.stdout, EVIDENCE_BYTES);
            let said = if said.trim().is_empty() { finished.stderr_tail } else { said };
            Err(format!("{}: {}", finished.ended, text::tail(said.trim().as_bytes(), EVIDENCE_BYTES)))
        }
        Err(ExecError::Deadline { .. }) => Err(too_slow()),
        Err(error) => Err(error.to_string()),
    }
}

/// Why a text is not a probe.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is not a probe; write tcp:HOST:PORT, http://HOST[:PORT]/PATH, exec:/PROGRAM [ARGS] or unit:NAME.service"
)]
pub struct NotAProbe(String);

/// The probe that a person wrote on the command line.
pub fn parse(text: &str) -> Result<Probe, NotAProbe> {
    let refused = || NotAProbe(text::printable(text).chars().take(200).collect());
    if text.starts_with("http://") {
        let uri: hyper::Uri = text.parse().map_err(|_| refused())?;
        return uri.host().map(|_| Probe::Http { url: text.to_owned() }).ok_or_else(refused);
    }
    match text.split_once(':') {
        Some(("tcp", address)) if is_address(address) => Ok(Probe::Tcp { address: address.to_owned() }),
        Some(("unit", unit)) if unit.parse::<crate::tools::units::UnitName>().is_ok() => {
            Ok(Probe::Unit { unit: unit.to_owned() })
        }
        Some(("exec", line)) if line.starts_with('/') => {
            Ok(Probe::Exec { argv: line.split_ascii_whitespace().map(str::to_owned).collect() })
        }
        Some(_) | None => Err(refused()),
    }
}

fn is_address(text: &str) -> bool {
    text.rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok())
}

/// `host:port` of a substituter that is reached over the network; `None` for a folder and the like.
pub fn address_of(substituter: &str) -> Option<String> {
    let uri: hyper::Uri = substituter.parse().ok()?;
    let port = match uri.scheme_str() {
        Some("http") => uri.port_u16().unwrap_or(80),
        Some("https") => uri.port_u16().unwrap_or(443),
        Some(_) | None => return None,
    };
    Some(format!("{}:{port}", uri.host()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::activation::linux::LinuxBackend;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    async fn server(answer: &'static str) -> String {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("bound");
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut request = [0; 1024];
                let _ = stream.read(&mut request).await;
                let _ = stream.write_all(answer.as_bytes()).await;
            }
        });
        format!("http://{address}/health")
    }

    async fn asked(probe: Probe) -> Result<(), String> {
        ask(&LinuxBackend::new(), &probe).await
    }

    #[tokio::test]
    async fn an_http_probe_passes_on_200_and_says_the_status_otherwise() {
        let url = server("HTTP/1.1 204 No Content\r\n\r\n").await;
        assert_eq!(asked(Probe::Http { url }).await, Ok(()));
        let url = server("HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n").await;
        assert_eq!(asked(Probe::Http { url }).await, Err("status 503 Service Unavailable".to_owned()));
        let url = server("not http at all\r\n\r\n").await;
        assert!(asked(Probe::Http { url }).await.is_err());
    }

    #[tokio::test]
    async fn nobody_listening_is_a_failure_with_evidence() {
        let said = asked(Probe::Tcp { address: "127.0.0.1:1".into() }).await.expect_err("nobody listens");
        assert!(said.contains("refused"), "{said}");
    }

    #[tokio::test]
    async fn an_exec_probe_passes_on_0_and_keeps_what_the_program_said() {
        let exec = |line: &str| Probe::Exec { argv: line.split(' ').map(str::to_owned).collect() };
        assert_eq!(asked(exec("/bin/true")).await, Ok(()));
        let said = asked(exec("/bin/ls /nowhere")).await.expect_err("there is no such folder");
        assert!(said.contains("exit status 2") && said.contains("/nowhere"), "{said}");
    }

    #[test]
    fn probes_are_read_and_everything_else_is_refused_with_the_forms() {
        assert_eq!(parse("tcp:localhost:80"), Ok(Probe::Tcp { address: "localhost:80".into() }));
        assert_eq!(parse("unit:nginx.service"), Ok(Probe::Unit { unit: "nginx.service".into() }));
        assert_eq!(parse("exec:/bin/x -y"), Ok(Probe::Exec { argv: vec!["/bin/x".into(), "-y".into()] }));
        for bad in ["", "tcp:", "tcp:80", "unit:--force", "exec:sh", "https://x/", "http://", "ftp://x"] {
            let said = parse(bad).expect_err(bad).to_string();
            assert!(said.contains("tcp:HOST:PORT"), "{said}");
        }
    }

    #[test]
    fn only_network_substituters_have_an_address() {
        assert_eq!(address_of("https://cache.example/x?priority=1"), Some("cache.example:443".into()));
        assert_eq!(address_of("http://10.0.0.1:8080"), Some("10.0.0.1:8080".into()));
        assert_eq!(address_of("file:///cache"), None);
        assert_eq!(address_of("daemon"), None);
    }
}
