//! Follows the release source, and turns what it says into inputs.

use nixfleet_core::host::Event;
use nixfleet_core::host::probing::WatchId;
use nixfleet_trust::trust::Trust;
use tokio::sync::mpsc;

use crate::runtime::input::Input;
use crate::source::{Ask, Following, Said, follow};

/// How many asks may wait. The worker takes them within a look; a machine asks once for each trial and each start.
const ASKS_MAX: usize = 4;
/// How much of what the source said may wait; each look says three things at most.
const SAID_MAX: usize = 4;

/// The way to the worker.
#[derive(Debug, Clone)]
pub struct Asks(mpsc::Sender<Ask>);

impl Asks {
    /// Has the source looked at without delay.
    pub fn look(&self) {
        // Full: it is about to be looked at anyway. Closed: as below.
        let _ = self.0.try_send(Ask::Again);
    }

    /// Has the source asked over a fresh connection, until it answers.
    pub fn ask(&self, watch: WatchId) {
        let asks = self.0.clone();
        // Not waited for within the reducer's turn. Closed: the worker is gone, and the process is about to end.
        tokio::spawn(async move { asks.send(Ask::Now(watch)).await });
    }
}

/// Starts to follow, with what was trusted last.
pub fn start((following, trust): (Following, Trust), inputs: mpsc::Sender<Input>) -> Asks {
    let (asks, asked) = mpsc::channel(ASKS_MAX);
    let (say, mut said) = mpsc::channel(SAID_MAX);
    tokio::spawn(follow(following, trust, asked, say));
    tokio::spawn(async move {
        while let Some(said) = said.recv().await {
            // Closed: the reducer is gone.
            if inputs.send(input_of(said)).await.is_err() {
                return;
            }
        }
    });
    Asks(asks)
}

fn input_of(said: Said) -> Input {
    match said {
        Said::Answered { watch } => Input::Told(Event::SourceAnswered { watch }),
        Said::Failed { why } => Input::Told(Event::SourceFailed { why }),
        Said::Refused { kind, why } => Input::Told(Event::ReleaseRefused { kind, why }),
        Said::Moved { to } => Input::TrustMoved(to),
        Said::Offered(offer) => Input::Offered(offer),
    }
}
