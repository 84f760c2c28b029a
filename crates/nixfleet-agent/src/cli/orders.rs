
//! scratch
use std::path::Path;
use std::process::ExitCode;
use nixfleet_agent::runtime::start::Orders;
use nixfleet_agent::source::{Following, look::Looker, web::{tls::ServerTrust, Proxies, Limits}};
use nixfleet_core::host::world::{Setup, SourceKind};
use nixfleet_core::model::time::UnixMs;
use std::sync::Arc;
pub(crate) const CONFIG: &str = "/etc/nixfleet/agent.toml";
pub(crate) fn read(config: &Path) -> Result<Option<Orders>, ExitCode> {
    let Ok(text) = std::fs::read_to_string(config) else { return Ok(None) };
    let get = |name: &str| text.lines().find_map(|l| l.strip_prefix(&format!("{name} = \""))).unwrap().trim_end_matches('"').to_owned();
    let key = std::fs::read_to_string(get("host-key") + ".pub").unwrap();
    let looker = Looker { channel: get("channel").parse().unwrap(), me: nixfleet_trust::check::entry::HostIdentity { name: get("host").parse().unwrap(), key: nixfleet_trust::key::PublicKey::read(key.trim()).unwrap() } };
    Ok(Some(Orders {
        setup: Setup { agent: "0.1.0".into(), host: get("host").parse().unwrap(), channel: get("channel").parse().unwrap(), source: SourceKind::Static },
        source: Following { place: get("source").parse().unwrap(), server: ServerTrust::Host, proxies: Proxies::None, limits: Limits::default(), looker, poll: std::time::Duration::from_secs(5), clock: Arc::new(|| UnixMs::new(nixfleet_sys::clock::unix_ms()).unwrap()), random: Arc::new(|| 7) },
        root: std::fs::read(get("root")).unwrap(),
    }))
}
