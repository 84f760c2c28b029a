//! A TCP connection opens.

use tokio::net::TcpStream;
use tokio::time::timeout;

use super::{Answer, PROBE_DEADLINE};
use crate::programs::too_slow;

/// Whether `host:port` takes a connection; the caller has the deadline.
pub(super) async fn ask(address: &str) -> Answer {
    open(address).await.map(|_| "it takes connections".to_owned())
}

/// A fresh connection; the caller has the deadline.
pub(super) async fn open(address: &str) -> Result<TcpStream, String> {
    TcpStream::connect(address).await.map_err(|error| error.to_string())
}

/// A fresh connection to `host:port` within [`PROBE_DEADLINE`].
pub async fn connect(address: &str) -> Result<TcpStream, String> {
    timeout(PROBE_DEADLINE, open(address)).await.unwrap_or_else(|_| Err(too_slow(PROBE_DEADLINE)))
}
