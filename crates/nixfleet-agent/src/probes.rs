//! What a healthy host answers. A probe that did not run has not passed (invariant 9).
//!
//! A [`Prober`] asks one probe, and remembers what one answer alone does not show (restarts). [`start`] asks all probes
//! of a watch over and over for the reducer; the confirmation of an activation asks its own in rounds. Both get the
//! same [`Answer`]. Every question has a deadline, opens a fresh connection, and cannot panic; evidence is one short
//! printable line, and holds no body of an answer and no address with a password.

use std::time::Duration;

use nixfleet_core::activation::record::Probe;
use nixfleet_core::model::probe::{
    ExecProbe, HttpProbe, ProbeKind, StatusRange, TcpProbe, TlsTrust, UnitProbe,
};
use nixfleet_sys::clock;
use tokio::time::timeout;

use crate::activation::backend::ActivationBackend;
use crate::programs::{self, Holder, evidence, too_slow};
use unit::Restarts;

mod http;
mod metric;
mod parse;
mod tcp;
mod tls;
mod unit;
pub mod units;
pub mod watch;

pub use metric::text as metric_text;
pub use parse::{NotAProbe, address_of, parse};
pub use tcp::connect;
pub use watch::{Baseline, Running, start};

/// How long one question may take for a person's activation: a service that needs longer to say that it is well is not.
pub const PROBE_DEADLINE: Duration = Duration::from_secs(5);

/// What a probe found: evidence on both sides. `Err` is also whatever kept it from running.
pub type Answer = Result<String, String>;

/// One probe, and what it remembers from one time to the next.
#[derive(Debug)]
pub struct Prober {
    kind: ProbeKind,
    limit: Duration,
    holder: Holder,
    restarts: Restarts,
}

impl Prober {
    /// A probe that fails when it gets no answer in time, and whose program, if it is one, is held by `holder`.
    pub fn new(kind: ProbeKind, limit: Duration, holder: Holder) -> Self {
        Self { kind, limit, holder, restarts: Restarts::default() }
    }

    /// A probe of a person's activation.
    pub fn of(probe: &Probe, holder: Holder) -> Self {
        let kind = match probe.clone() {
            Probe::Tcp { address } => ProbeKind::Tcp(TcpProbe { address }),
            Probe::Http { url, ca_file, redirects } => ProbeKind::Http(HttpProbe {
                url,
                status: StatusRange::default(),
                body_contains: None,
                tls: ca_file.map_or(TlsTrust::SystemRoots, TlsTrust::CaFile),
                redirects,
            }),
            Probe::Exec { argv } => ProbeKind::Exec(ExecProbe { argv }),
            Probe::Unit { unit } => ProbeKind::Unit(UnitProbe { unit }),
        };
        Self::new(kind, PROBE_DEADLINE, holder)
    }

    /// As people write it.
    pub fn name(&self) -> String {
        self.kind.to_string()
    }

    /// Asks once; ends within the limit and the few seconds that ending a program takes.
    pub async fn ask<B: ActivationBackend>(&mut self, backend: &B) -> Answer {
        let limit = self.limit;
        let answer = match &self.kind {
            // The program's own deadline ends what it started, and is over when nothing is left.
            ProbeKind::Exec(ExecProbe { argv }) => Box::pin(programs::run(&self.holder, argv, limit)).await,
            ProbeKind::Tcp(TcpProbe { address }) => within(limit, tcp::ask(address)).await,
            ProbeKind::Http(probe) => Box::pin(within(limit, http::ask(probe))).await,
            ProbeKind::HttpMetric(probe) => Box::pin(within(limit, metric::ask(probe))).await,
            ProbeKind::Unit(UnitProbe { unit }) => {
                match Box::pin(within(limit, backend.unit_now(unit))).await {
                    Ok(now) => self.restarts.judge(&now, clock::monotonic()),
                    Err(why) => Err(why),
                }
            }
        };
        answer.map(|found| evidence(&found)).map_err(|found| evidence(&found))
    }
}

async fn within<T>(limit: Duration, asked: impl Future<Output = Result<T, String>>) -> Result<T, String> {
    timeout(limit, asked).await.unwrap_or_else(|_| Err(too_slow(limit)))
}

#[cfg(test)]
mod tests;
