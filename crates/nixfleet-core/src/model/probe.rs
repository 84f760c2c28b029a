//! What a healthy host answers, and how often it is asked.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::is_default;
use super::names::{ProbeName, Sha256};
use super::time::Secs;

/// One probe of one host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProbeSpec {
    /// Its name; unique within its host.
    pub name: ProbeName,
    /// What is asked.
    pub kind: ProbeKind,
    /// What a failure means.
    #[serde(default, skip_serializing_if = "is_default")]
    pub mode: ProbeMode,
    /// From one run to the next.
    pub interval_secs: Secs,
    /// When a run counts as failed; the whole process group of a program is ended.
    pub timeout_secs: Secs,
    /// From the activation to the first run.
    pub after_secs: Secs,
    /// So many failures in a row make a sustained failure; at least 1.
    pub failures: u32,
}

/// What a probe's failure means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ProbeMode {
    /// The update is bad.
    #[default]
    Enforce,
    /// It is reported, and decides nothing.
    Observe,
    /// The probe does not run.
    Disabled,
}

/// What is asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ProbeKind {
    /// An HTTP request is answered as expected.
    Http(HttpProbe),
    /// A TCP connection opens.
    Tcp(TcpProbe),
    /// A program exits with 0.
    Exec(ExecProbe),
    /// A systemd unit is active and does not restart in a loop.
    Unit(UnitProbe),
    /// A number in a text of Prometheus metrics keeps to a limit.
    HttpMetric(MetricProbe),
}

/// An HTTP request is answered as expected.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HttpProbe {
    /// `http://` or `https://`.
    pub url: String,
    /// The statuses that are good.
    #[serde(default, skip_serializing_if = "is_default")]
    pub status: StatusRange,
    /// A text that the answer's body must contain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body_contains: Option<String>,
    /// Whom an `https` server is believed by.
    #[serde(default, skip_serializing_if = "is_default")]
    pub tls: TlsTrust,
    /// What becomes of an answer that names another address.
    #[serde(default, skip_serializing_if = "is_default")]
    pub redirects: Redirects,
}

/// What becomes of an answer that sends us to another address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Redirects {
    /// It is a failure: what answers there is not what was asked about. It is an answer like any other only where
    /// the good statuses are 300 and above, so that nothing else can have been meant.
    #[default]
    Refuse,
    /// The other address is asked, a few times in a row at most, and never without TLS after one with it.
    Follow,
}

/// Whom a TLS server is believed by (lesson 22).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TlsTrust {
    /// The host's certificate authorities.
    #[default]
    SystemRoots,
    /// Nobody but the server with this key: SHA-256 over its `SubjectPublicKeyInfo`.
    PinnedKey(Sha256),
    /// The certificate authorities in this file of the host, in PEM form, and no other; its absolute path.
    CaFile(String),
}

/// HTTP statuses from `min` to `max`, both included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StatusRange {
    /// The lowest good one.
    pub min: u16,
    /// The highest good one.
    pub max: u16,
}

impl Default for StatusRange {
    /// 200 to 399.
    fn default() -> Self {
        Self { min: 200, max: 399 }
    }
}

/// A TCP connection opens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TcpProbe {
    /// `host:port`.
    pub address: String,
}

/// A program exits with 0.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExecProbe {
    /// The program's absolute path, and its arguments.
    pub argv: Vec<String>,
}

/// A systemd unit is active and does not restart in a loop.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UnitProbe {
    /// Its name, with the suffix.
    pub unit: String,
}

/// A number in a text of Prometheus metrics keeps to a limit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MetricProbe {
    /// Where the text is; `http://` or `https://`.
    pub url: String,
    /// Whom an `https` server is believed by.
    #[serde(default, skip_serializing_if = "is_default")]
    pub tls: TlsTrust,
    /// What becomes of an answer that names another address.
    #[serde(default, skip_serializing_if = "is_default")]
    pub redirects: Redirects,
    /// The sample, with its labels if it has any, as it stands in the text: `errors_total{job="web"}`.
    pub metric: String,
    /// What is good.
    pub good: MetricLimit,
}

/// Which values of a metric are good.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MetricLimit {
    /// This or less.
    AtMost(Finite),
    /// This or more.
    AtLeast(Finite),
}

/// A number that is neither infinite nor undefined.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(try_from = "f64", into = "f64")]
pub struct Finite(f64);

/// A number was infinite or undefined.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the number is not finite")]
pub struct NotFinite;

impl Finite {
    /// The number.
    pub fn get(self) -> f64 {
        self.0
    }
}

// Without undefined values, equality is reflexive.
impl Eq for Finite {}

impl TryFrom<f64> for Finite {
    type Error = NotFinite;
    fn try_from(value: f64) -> Result<Self, NotFinite> {
        if value.is_finite() { Ok(Self(value)) } else { Err(NotFinite) }
    }
}

impl From<Finite> for f64 {
    fn from(value: Finite) -> Self {
        value.0
    }
}

impl fmt::Display for ProbeKind {
    /// As people write it: `tcp:HOST:PORT`, a URL, `exec:PROGRAM …`, `unit:NAME`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Http(HttpProbe { url, .. }) => f.write_str(url),
            Self::Tcp(TcpProbe { address }) => write!(f, "tcp:{address}"),
            Self::Exec(ExecProbe { argv }) => write!(f, "exec:{}", argv.join(" ")),
            Self::Unit(UnitProbe { unit }) => write!(f, "unit:{unit}"),
            Self::HttpMetric(MetricProbe { url, metric, .. }) => write!(f, "{metric} at {url}"),
        }
    }
}
