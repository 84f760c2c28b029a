//! Probes as a person writes them, and where substituters are.

use nixfleet_core::activation::record::Probe;
use nixfleet_core::model::probe::Redirects;
use nixfleet_sys::text;

/// Why a text is not a probe.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is not a probe; write tcp:HOST:PORT, http[s]://HOST[:PORT]/PATH, exec:/PROGRAM [ARGS] or unit:NAME.service"
)]
pub struct NotAProbe(String);

/// The probe that a person wrote on the command line.
pub fn parse(text: &str) -> Result<Probe, NotAProbe> {
    let refused = || NotAProbe(text::printable(text).chars().take(200).collect());
    if text.starts_with("http://") || text.starts_with("https://") {
        let uri: hyper::Uri = text.parse().map_err(|_| refused())?;
        let url = text.to_owned();
        let probe = Probe::Http { url, ca_file: None, redirects: Redirects::Refuse };
        return uri.host().map(|_| probe).ok_or_else(refused);
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

    #[test]
    fn probes_are_read_and_everything_else_is_refused_with_the_forms() {
        assert_eq!(parse("tcp:localhost:80"), Ok(Probe::Tcp { address: "localhost:80".into() }));
        assert_eq!(parse("unit:nginx.service"), Ok(Probe::Unit { unit: "nginx.service".into() }));
        let plain = Probe::Http { url: "https://x/".into(), ca_file: None, redirects: Redirects::Refuse };
        assert_eq!(parse("https://x/"), Ok(plain));
        assert_eq!(parse("exec:/bin/x -y"), Ok(Probe::Exec { argv: vec!["/bin/x".into(), "-y".into()] }));
        for bad in ["", "tcp:", "tcp:80", "unit:--force", "exec:sh", "https://", "http://", "ftp://x"] {
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
