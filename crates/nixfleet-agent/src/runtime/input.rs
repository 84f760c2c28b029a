//! What workers tell the reducer.

use std::path::PathBuf;

use nixfleet_core::host::{Event, Record};
use nixfleet_core::wire::Hello;
use tokio::sync::oneshot;

use crate::source::look::{Moved, Offer};

/// How many inputs may wait for the reducer.
///
/// It takes one in a millisecond or two (two syncs); the liveliest minute of a host has some twenty probes, a dozen
/// steps of an activation and a few answers of the source. Whoever finds it full waits, and loses nothing.
pub const INPUTS_MAX: usize = 64;

/// What the link to a control plane needs of the outbox, which the reducer's desk owns.
#[derive(Debug)]
pub enum Errand {
    /// What the control plane does not have yet.
    Unsent {
        /// Where to.
        reply: oneshot::Sender<Vec<Record>>,
    },
    /// The control plane has everything below this number, and nothing from it on.
    Received {
        /// The number.
        next: u64,
    },
    /// Who this host is and how far it is.
    Hello {
        /// Whether the whole state is wanted, too.
        state: WithState,
        /// Where to.
        reply: oneshot::Sender<Box<Hello>>,
    },
}

/// Whether a [`Hello`] has the whole state in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WithState {
    /// It does.
    Yes,
    /// It has its digest only.
    No,
}

/// One thing that a worker tells.
#[derive(Debug)]
pub enum Input {
    /// A fact, or a wish.
    Told(Event),
    /// A release passed every check; what it says to this host, and what to trust from now on.
    Offered(Box<Offer>),
    /// A newer root or floor was accepted.
    TrustMoved(Box<Moved>),
    /// The link to a control plane needs something of the outbox.
    Errand(Errand),
    /// What runs may be something else than before: look.
    LookAgain,
    /// Something of an activation is not finished. Whoever began it may have died.
    TidyUp,
    /// A person's wish, from a file that is removed once the wish is saved.
    Asked {
        /// The wish.
        event: Event,
        /// The file.
        request: PathBuf,
    },
}
