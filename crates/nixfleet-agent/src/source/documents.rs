//! What a source is to a look: something that is asked for documents by their path.

use std::future::Future;
use std::time::Duration;

/// A source of documents.
pub trait Documents: Send {
    /// Asks for one document. There is a limit on how long it takes.
    fn get(&mut self, wanted: Wanted<'_>) -> impl Future<Output = Result<Got, NoAnswer>> + Send;

    /// A look begins: what is asked from now on, until the next one begins, should be of one moment.
    fn begin(&mut self, connection: Connection);

    /// Returns when there may be news; for ever pending where nobody tells. Cancel-safe: news not taken stays.
    fn news(&mut self) -> impl Future<Output = ()> + Send;
}

/// Over which connection a look asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Connection {
    /// One that is open already will do.
    Any,
    /// A new one.
    Fresh,
}

/// A document that is asked for.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    /// Its path in the layout.
    pub path: &'a str,
    /// How large it may be. Of a larger one the first byte too many is still read, so that its reader can see it.
    pub bytes_max: usize,
    /// The version that is known: if it is still the same one, it is not sent again.
    pub known: Option<&'a Version>,
}

/// What a source calls the version of a document that it served.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Version {
    /// Its entity tag.
    pub etag: Option<String>,
    /// When it was last modified, as the server writes it.
    pub modified: Option<String>,
}

/// What came of asking.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Got {
    /// The document, or its beginning if it is too large.
    Bytes {
        /// Its bytes; at most one more than was wanted.
        bytes: Vec<u8>,
        /// What the source calls it; `None` if it does not say.
        version: Option<Version>,
    },
    /// It is the version that is known.
    Same,
    /// There is none.
    Missing,
}

/// Why a source gave no answer that could be looked at. The text is for people, and says which document.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoAnswer {
    /// It could not be reached, or the connection broke.
    #[error("{at}: {why}")]
    Unreachable {
        /// Which document.
        at: String,
        /// What was seen.
        why: String,
    },
    /// It took too long.
    #[error("{at}: no whole answer within {secs} s")]
    TooSlow {
        /// Which document.
        at: String,
        /// How long was waited.
        secs: u64,
    },
    /// It answered that it cannot answer.
    #[error("{at}: the server answers with status {status}{}", wish(*again_after))]
    Status {
        /// Which document.
        at: String,
        /// The status.
        status: u16,
        /// For how long it wants not to be asked again, if it says so.
        again_after: Option<Duration>,
    },
    /// It answered with a web page, as the login page of a hotel's network does.
    #[error("{at}: a web page came instead of a document; is this a login page, or the wrong address?")]
    WebPage {
        /// Which document.
        at: String,
    },
    /// The channel has no newest release.
    #[error(
        "{at}: there is none; either nothing was published for this channel, or this is not a release source"
    )]
    NothingPublished {
        /// Which document.
        at: String,
    },
    /// What should be the number of the newest release is something else.
    #[error("{at}: {why}")]
    NotLatest {
        /// Which document.
        at: String,
        /// What is wrong with it.
        why: nixfleet_core::model::layout::NotLatest,
    },
}

impl NoAnswer {
    /// For how long the source wants not to be asked again, if it said so.
    pub fn again_after(&self) -> Option<Duration> {
        match self {
            Self::Status { again_after, at: _, status: _ } => *again_after,
            Self::Unreachable { .. }
            | Self::TooSlow { .. }
            | Self::WebPage { .. }
            | Self::NothingPublished { .. }
            | Self::NotLatest { .. } => None,
        }
    }
}

fn wish(again_after: Option<Duration>) -> String {
    again_after
        .map_or_else(String::new, |span| format!(" and wants not to be asked for {} s", span.as_secs()))
}
