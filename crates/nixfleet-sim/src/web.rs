//! A web server with the folder of signed releases: what hosts without a control plane follow. It knows nothing of hosts.

use std::sync::Arc;

use nixfleet_core::host::world::SourceKind;

use crate::sim::Sim;
use crate::truth::Signed;

/// The server.
pub(crate) struct Web {
    pub(crate) is_up: bool,
    /// The newest release that lies there, by channel.
    pub(crate) served: Vec<Option<Arc<Signed>>>,
}

impl Web {
    pub(crate) fn new(channels: usize) -> Self {
        Self { is_up: true, served: (0..channels).map(|_| None).collect() }
    }
}

impl Sim {
    /// Whether the host follows the web server.
    pub(crate) fn is_static(&self, host: usize) -> bool {
        self.hosts[host].setup.source == SourceKind::Static
    }
}
