//! A web server as a source: one client, plain GETs, everything bounded.
//!
//! A server may be slow, endless, gone, or somebody else. Connecting, silence and the whole answer have a limit each;
//! what is too large is cut; a redirect leads to the same server or nowhere; and a web page is never a document.
//! Proxies are taken from the environment (`https_proxy`, `http_proxy`, `no_proxy`), as Nix takes them.

pub mod identity;
pub mod tls;

use std::sync::Arc;
use std::time::Duration;

use reqwest::header::{
    CACHE_CONTROL, CONTENT_TYPE, DATE, ETAG, HeaderMap, HeaderName, IF_MODIFIED_SINCE, IF_NONE_MATCH,
    LAST_MODIFIED, RETRY_AFTER,
};
use reqwest::redirect::{Attempt, Policy};
use reqwest::{Client, Response, StatusCode};

use super::documents::{Connection, Documents, Got, NoAnswer, Version, Wanted};
use super::place::WebAddress;
use identity::ClientIdentity;
use nixfleet_core::host::pause;
use nixfleet_sys::text::chain;
use tls::ServerTrust;

/// How long a server has to be connected to, with the handshake of TLS: three tries of TCP over a bad line.
const CONNECT_WITHIN: Duration = Duration::from_secs(15);
/// How long a server may be silent in the middle of an answer.
const SILENT_MAX: Duration = Duration::from_secs(15);
/// How long one answer may take: 64 KiB at 20 kbit/s, the slowest line that anybody reports from the field.
const WHOLE_WITHIN: Duration = Duration::from_secs(30);
/// The most redirects in a row: to a trailing slash, to a canonical path.
const REDIRECTS_MAX: usize = 3;
/// An entity tag or date that is longer is not sent back.
const VALIDATOR_BYTES_MAX: usize = 256;
const AGENT: &str = concat!("nixfleet-agent/", env!("CARGO_PKG_VERSION"));

/// Limits of a web source; tests have others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// From the first byte sent to the connection being there.
    pub connect: Duration,
    /// Between two bytes of an answer.
    pub silent: Duration,
    /// The whole answer.
    pub whole: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { connect: CONNECT_WITHIN, silent: SILENT_MAX, whole: WHOLE_WITHIN }
    }
}

/// Whether proxies of the environment are used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Proxies {
    /// As the environment says.
    #[default]
    FromEnvironment,
    /// None.
    None,
}

/// How this host speaks to a server: whom it takes the server for, who it is itself, and by which way.
#[derive(Debug, Clone, Default)]
pub struct Speaking {
    /// How the server proves who it is.
    pub trust: ServerTrust,
    /// How this host does.
    pub identity: Option<Arc<ClientIdentity>>,
    /// Whether proxies are used.
    pub proxies: Proxies,
}

impl Speaking {
    /// A client with these limits; certificates of the host are read now.
    pub(crate) fn client(&self, limits: Limits, is_https: bool) -> Result<Client, reqwest::Error> {
        let builder = Client::builder()
            .user_agent(AGENT)
            .http1_only()
            .referer(false)
            .redirect(Policy::custom(same_server))
            .connect_timeout(limits.connect)
            .read_timeout(limits.silent)
            .timeout(limits.whole)
            .pool_max_idle_per_host(1);
        let builder = match self.proxies {
            Proxies::FromEnvironment => builder,
            Proxies::None => builder.no_proxy(),
        };
        self.trust.apply(builder, self.identity.as_deref(), is_https)?.build()
    }
}

/// A web server as a source.
#[derive(Debug)]
pub struct Web {
    address: WebAddress,
    speaking: Speaking,
    limits: Limits,
    /// Made when it is needed: certificates are read then, and may have changed after a failure.
    client: Option<Client>,
}

impl Web {
    /// The server at `address`. Nothing is connected to yet.
    pub fn new(address: WebAddress, speaking: Speaking, limits: Limits) -> Self {
        Self { address, speaking, limits, client: None }
    }

    fn client(&mut self) -> Result<Client, reqwest::Error> {
        if let Some(client) = &self.client {
            return Ok(client.clone());
        }
        let client = self.speaking.client(self.limits, self.address.is_https())?;
        self.client = Some(client.clone());
        Ok(client)
    }

    fn failed(&self, at: String, error: reqwest::Error) -> NoAnswer {
        // Named once, by `at`.
        let error = error.without_url();
        if error.is_timeout() && !error.is_connect() {
            return NoAnswer::TooSlow { at, secs: self.limits.whole.as_secs() };
        }
        NoAnswer::Unreachable { at, why: chain(&error) }
    }
}

impl Documents for Web {
    async fn get(&mut self, wanted: Wanted<'_>) -> Result<Got, NoAnswer> {
        let url = self.address.of(wanted.path);
        let at = url.to_string();
        let client = self.client().map_err(|error| self.failed(at.clone(), error))?;
        // A cache on the way must ask its server; what is asked for is small, and old news is no news.
        let mut request = client.get(url).header(CACHE_CONTROL, "no-cache");
        if let Some(Version { etag, modified }) = wanted.known {
            request = etag.iter().fold(request, |request, etag| request.header(IF_NONE_MATCH, etag));
            request = modified.iter().fold(request, |request, at| request.header(IF_MODIFIED_SINCE, at));
        }
        let response = request.send().await.map_err(|error| self.failed(at.clone(), error))?;
        match response.status() {
            StatusCode::OK if is_page(response.headers()) => Err(NoAnswer::WebPage { at }),
            StatusCode::OK => {
                let version = version(response.headers());
                let bytes = start(response, wanted.bytes_max).await;
                let bytes = bytes.map_err(|error| self.failed(at, error))?;
                Ok(Got::Bytes { bytes, version })
            }
            StatusCode::NOT_MODIFIED if wanted.known.is_some() => Ok(Got::Same),
            StatusCode::NOT_FOUND | StatusCode::GONE => Ok(Got::Missing),
            status => {
                let again_after = again_after(response.headers());
                Err(NoAnswer::Status { at, status: status.as_u16(), again_after })
            }
        }
    }

    fn begin(&mut self, connection: Connection) {
        match connection {
            Connection::Any => {}
            // Connections belong to their client and end with it.
            Connection::Fresh => self.client = None,
        }
    }

    async fn news(&mut self) {
        std::future::pending::<()>().await;
    }
}

/// A redirect to another server would let whoever controls one answer send a fleet's requests anywhere, and one from
/// https to http would give up the server's identity.
fn same_server(attempt: Attempt<'_>) -> reqwest::redirect::Action {
    let Some(first) = attempt.previous().first() else { return attempt.stop() };
    if attempt.previous().len() > REDIRECTS_MAX {
        attempt.error("too many redirects")
    } else if first.origin() == attempt.url().origin() {
        attempt.follow()
    } else {
        let to = attempt.url().origin().ascii_serialization();
        attempt.error(format!("it redirects to another server, {to}"))
    }
}

fn is_page(headers: &HeaderMap) -> bool {
    let kind = headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    kind == "text/html" || kind == "application/xhtml+xml"
}

/// For how long a server wants not to be asked again, if it says so.
pub(crate) fn again_after(headers: &HeaderMap) -> Option<Duration> {
    let text = |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    pause::retry_after(text(RETRY_AFTER)?, text(DATE))
}

fn version(headers: &HeaderMap) -> Option<Version> {
    let text = |name: HeaderName| {
        let value = headers.get(name)?.to_str().ok()?;
        (value.len() <= VALIDATOR_BYTES_MAX).then(|| value.to_owned())
    };
    let version = Version { etag: text(ETAG), modified: text(LAST_MODIFIED) };
    (version != Version::default()).then_some(version)
}

/// The first `bytes_max + 1` bytes at most; what follows is not waited for.
async fn start(mut response: Response, bytes_max: usize) -> Result<Vec<u8>, reqwest::Error> {
    let mut bytes = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        bytes.extend_from_slice(&chunk);
        if bytes.len() > bytes_max {
            bytes.truncate(bytes_max + 1);
            break;
        }
    }
    Ok(bytes)
}
