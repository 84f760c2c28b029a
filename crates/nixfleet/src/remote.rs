//! A control plane, as people's programs ask it: one client, everything bounded, and errors that say whose fault it is.
//!
//! [`settings`] says where it is and with whose token it is asked; [`live`] reads its log as it grows; [`sending`] sends a
//! release. Shapes of JSON are `nixfleet_core::wire`'s. Nothing that a control plane answers is trusted for more than to be
//! shown: what hosts run is decided by signatures.
//!
//! Proxies are taken from the environment (`https_proxy`, `no_proxy`). Redirects are not followed: a token goes to the
//! server that was named and to no other.

pub mod live;
pub mod sending;
pub mod settings;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use nixfleet_core::wire::people::{Page, Problem};
use nixfleet_sys::fs::{self, FsError};
use nixfleet_sys::pin;
use nixfleet_sys::text::{chain, printable};
use reqwest::header::{ACCEPT, CONTENT_TYPE, HeaderMap};
use reqwest::redirect::Policy;
use reqwest::{Certificate, Method, RequestBuilder, Response, StatusCode, Url};
use serde::Serialize;
use serde::de::DeserializeOwned;

use settings::{KnownBy, Settings, Token};

/// How long connecting may take, with the handshake of TLS: three tries of TCP over a bad line.
const CONNECT_WITHIN: Duration = Duration::from_secs(10);
/// The largest answer that is read, in bytes: a page of a thousand hosts that all failed with long outcomes has 60 MB.
const ANSWER_BYTES_MAX: usize = 64 << 20;
/// The largest file of authorities, in bytes; that of a whole distribution has 220 KB.
const CA_BYTES_MAX: u64 = 4 << 20;
/// Items that are asked for at once; the most that a control plane gives.
const PAGE: u32 = 1_000;
/// The most characters of an answer that is none of ours that are repeated.
const SHOWN_MAX: usize = 120;
const AGENT: &str = concat!("nixfleet/", env!("CARGO_PKG_VERSION"));

/// Why something was not answered.
#[derive(Debug, thiserror::Error)]
pub enum NotAnswered {
    /// There is no way to it, or somebody else is there.
    #[error("{at} cannot be reached")]
    Unreachable {
        /// Where.
        at: Url,
        /// What was seen.
        source: reqwest::Error,
    },
    /// It takes too long.
    #[error("{at} did not answer within {within:?}")]
    TooSlow {
        /// Where.
        at: Url,
        /// The limit.
        within: Duration,
    },
    /// What answers is no control plane, or one that speaks otherwise.
    #[error("{at} answered {status} with what no control plane of this version answers: {what}")]
    Foreign {
        /// Where.
        at: Url,
        /// Its status.
        status: StatusCode,
        /// What was wrong.
        what: String,
    },
    /// It answered that it does not do that.
    #[error("{}", .0.detail)]
    Problem(Problem),
}

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
pub enum NoClient {
    /// The file of authorities.
    #[error(transparent)]
    File(#[from] FsError),
    /// It has none.
    #[error("`{}` has no certificates in PEM form", .0.display())]
    NoCertificates(PathBuf),
    /// TLS cannot be begun.
    #[error("TLS cannot be set up")]
    Tls(#[source] reqwest::Error),
}

/// A control plane.
#[derive(Debug, Clone)]
pub struct Remote {
    client: reqwest::Client,
    base: Url,
    token: Token,
    within: Duration,
}

impl Remote {
    /// The control plane that is meant, which has `within` for each answer. Nothing is connected to yet.
    pub fn new(settings: Settings, within: Duration) -> Result<Self, NoClient> {
        let Settings { server, token, known_by } = settings;
        let builder = reqwest::Client::builder()
            .user_agent(AGENT)
            .http1_only()
            .https_only(true)
            .referer(false)
            .redirect(Policy::none())
            .connect_timeout(CONNECT_WITHIN.min(within));
        let builder = match known_by {
            KnownBy::Machine => builder,
            KnownBy::Pin(pin) => {
                let tls = pin::trusting(BTreeSet::from([pin])).with_no_client_auth();
                builder.tls_backend_preconfigured(tls)
            }
            KnownBy::Authorities(path) => {
                let pem = fs::read_bounded(&path, CA_BYTES_MAX)?;
                let authorities = Certificate::from_pem_bundle(&pem).unwrap_or_default();
                if authorities.is_empty() {
                    return Err(NoClient::NoCertificates(path));
                }
                builder.tls_certs_only(authorities)
            }
        };
        let client = builder.build().map_err(NoClient::Tls)?;
        Ok(Self { client, base: server, token, within })
    }

    /// Where it is.
    pub fn server(&self) -> &Url {
        &self.base
    }

    /// What it answers to `GET path`.
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, NotAnswered> {
        self.ask(self.request(Method::GET, path)?).await
    }

    /// What it answers to `POST path` with this body.
    pub async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, NotAnswered> {
        let json = serde_json::to_vec(body).expect("texts and numbers are always JSON");
        let request = self.request(Method::POST, path)?.header(CONTENT_TYPE, "application/json").body(json);
        self.ask(request).await
    }

    /// All pages of `GET path` from `after` on, up to `most` items. Says whether that was all.
    pub async fn pages<T: DeserializeOwned>(
        &self,
        path: &str,
        after: &str,
        most: usize,
    ) -> Result<(Vec<T>, bool), NotAnswered> {
        let joint = if path.contains('?') { '&' } else { '?' };
        let mut all = Vec::new();
        let mut after = plain(after);
        loop {
            let from = if after.is_empty() { String::new() } else { format!("&after={after}") };
            let page: Page<T> = self.get(&format!("{path}{joint}limit={PAGE}{from}")).await?;
            // A page without items would have us ask for the same for ever.
            let goes_on = !page.items.is_empty();
            all.extend(page.items);
            match page.next {
                Some(next) if goes_on && all.len() < most => after = plain(&next),
                next => {
                    let is_all = next.is_none() && all.len() <= most;
                    all.truncate(most);
                    return Ok((all, is_all));
                }
            }
        }
    }

    fn request(&self, method: Method, path: &str) -> Result<RequestBuilder, NotAnswered> {
        let url = self.url(path)?;
        let request = self.client.request(method, url).bearer_auth(self.token.secret());
        Ok(request.header(ACCEPT, "application/json, application/problem+json"))
    }

    fn url(&self, path: &str) -> Result<Url, NotAnswered> {
        self.base.join(path).map_err(|error| NotAnswered::Foreign {
            at: self.base.clone(),
            status: StatusCode::OK,
            what: format!("a place that is none ({error})"),
        })
    }

    /// Asks, and reads the answer, all of it within the limit.
    async fn ask<T: DeserializeOwned>(&self, request: RequestBuilder) -> Result<T, NotAnswered> {
        let response = request.timeout(self.within).send().await.map_err(|error| self.failed(error))?;
        self.read(response).await
    }

    async fn read<T: DeserializeOwned>(&self, response: Response) -> Result<T, NotAnswered> {
        let (status, headers) = (response.status(), response.headers().clone());
        let bytes = self.bytes(response).await?;
        if status.is_success() {
            return serde_json::from_slice(&bytes).map_err(|error| {
                let what = if is_json(&headers) { error.to_string() } else { start_of(&headers, &bytes) };
                self.foreign(status, what)
            });
        }
        Err(self.problem(status, &headers, &bytes))
    }

    fn problem(&self, status: StatusCode, headers: &HeaderMap, bytes: &[u8]) -> NotAnswered {
        match serde_json::from_slice::<Problem>(bytes) {
            Ok(problem) if problem.status == status.as_u16() => {
                let clean = |text: String| printable(&text).replace(['\n', '\t'], " ");
                let Problem { kind, title, status, detail, hint } = problem;
                let (detail, hint) = (clean(detail), hint.map(clean));
                NotAnswered::Problem(Problem { kind, title, status, detail, hint })
            }
            Ok(_) | Err(_) if status.is_redirection() => {
                let to = headers.get("location").and_then(|to| to.to_str().ok()).unwrap_or("elsewhere");
                self.foreign(status, format!("it redirects to {}", shown(to)))
            }
            Ok(_) | Err(_) => self.foreign(status, start_of(headers, bytes)),
        }
    }

    fn foreign(&self, status: StatusCode, what: String) -> NotAnswered {
        NotAnswered::Foreign { at: self.base.clone(), status, what }
    }

    async fn bytes(&self, mut response: Response) -> Result<Vec<u8>, NotAnswered> {
        let status = response.status();
        let mut bytes = Vec::new();
        while let Some(piece) = response.chunk().await.map_err(|error| self.failed(error))? {
            if bytes.len() + piece.len() > ANSWER_BYTES_MAX {
                return Err(self.foreign(status, format!("more than {ANSWER_BYTES_MAX} bytes")));
            }
            bytes.extend_from_slice(&piece);
        }
        Ok(bytes)
    }

    fn failed(&self, error: reqwest::Error) -> NotAnswered {
        let at = self.base.clone();
        // Named once, by `at`.
        let source = error.without_url();
        if source.is_timeout() {
            return NotAnswered::TooSlow { at, within: self.within };
        }
        NotAnswered::Unreachable { at, source }
    }
}

impl NotAnswered {
    /// Whether it is about something that is not there.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Problem(problem) if problem.status == StatusCode::NOT_FOUND.as_u16())
    }

    /// Whether it may be answered a little later: there is no way, or the server is starting, ending, or out of breath.
    pub fn is_passing(&self) -> bool {
        match self {
            Self::Unreachable { .. } => self.tls_fault().is_none(),
            Self::TooSlow { .. } => true,
            Self::Foreign { status, .. } => status.is_server_error(),
            Self::Problem(problem) => problem.status == StatusCode::SERVICE_UNAVAILABLE.as_u16(),
        }
    }

    /// What TLS found wrong with the server, if that is what it was.
    pub fn tls_fault(&self) -> Option<String> {
        let Self::Unreachable { source, .. } = self else { return None };
        let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(source);
        while let Some(error) = cause {
            if let Some(fault) = error.downcast_ref::<rustls::Error>() {
                return Some(fault.to_string());
            }
            // An I/O error that wraps another one names that one's cause as its own, and not the one itself.
            let wrapped = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
            cause = match wrapped {
                Some(inner) => Some(inner),
                None => error.source(),
            };
        }
        None
    }

    /// In one line, with the causes.
    pub fn said(&self) -> String {
        chain(self)
    }
}

fn is_json(headers: &HeaderMap) -> bool {
    let kind = headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    kind.starts_with("application/json") || kind.starts_with("application/problem+json")
}

fn start_of(headers: &HeaderMap, bytes: &[u8]) -> String {
    let kind = headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or("no content type");
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(4 * SHOWN_MAX)]);
    match shown(&text) {
        text if text.is_empty() => format!("nothing ({})", shown(kind)),
        text => format!("{} `{text}`", shown(kind)),
    }
}

fn shown(text: &str) -> String {
    let words: Vec<&str> = text.split_whitespace().collect();
    printable(&words.join(" ")).chars().take(SHOWN_MAX).collect()
}

/// What stands in an address as it is; a control plane names nothing else as the place to go on.
fn plain(next: &str) -> String {
    next.chars().filter(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.')).collect()
}
