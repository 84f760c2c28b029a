//! A release on its way to a control plane: roots, the release and its entries, one document in each line, read from the
//! served folder while they are sent, so that a fleet of any size takes the memory of one entry.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::body::{Body, Bytes, Frame};
use nixfleet_core::model::names::{ChannelName, HostName, RootVersion, Seq};
use nixfleet_core::wire::people::Pushed;
use reqwest::Method;
use reqwest::header::CONTENT_TYPE;

use super::{NotAnswered, Remote};
use crate::served::{Served, ServedError};

/// How long a push may take: as long as a control plane waits for it.
const PUSH_WITHIN: Duration = Duration::from_mins(10);

/// The documents of a release, to be sent.
#[derive(Debug)]
pub struct Documents {
    served: Served,
    channel: ChannelName,
    seq: Seq,
    next: VecDeque<Document>,
    failed: Failed,
    on_sent: fn(u64),
}

/// Why a document could not be read while it was to be sent. A control plane that sees the body break off says only that.
pub type Failed = std::sync::Arc<std::sync::Mutex<Option<ServedError>>>;

#[derive(Debug)]
enum Document {
    Root(RootVersion),
    Release,
    Entry(HostName),
}

impl Documents {
    /// Release `seq` of `channel` with all roots; each document that is sent is told to `on_sent` by its size.
    pub fn of(
        served: &Served,
        channel: &ChannelName,
        seq: Seq,
        on_sent: fn(u64),
    ) -> Result<Self, ServedError> {
        let roots = served.roots()?.into_keys().map(Document::Root);
        let hosts = served.hosts(channel, seq)?.into_iter().map(Document::Entry);
        let next = roots.chain([Document::Release]).chain(hosts).collect();
        let (served, channel) = (served.clone(), channel.clone());
        Ok(Self { served, channel, seq, next, failed: Failed::default(), on_sent })
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.next.len()
    }

    /// A line: the document, which has no newline in it, and one.
    fn line(&self, document: &Document) -> Result<Bytes, ServedError> {
        let mut bytes = match document {
            Document::Root(version) => self.served.root(*version)?,
            Document::Release => self.served.release(&self.channel, self.seq)?,
            Document::Entry(host) => self.served.entry(&self.channel, self.seq, host)?,
        };
        bytes.retain(|byte| *byte != b'\n');
        bytes.push(b'\n');
        Ok(bytes.into())
    }
}

impl Body for Documents {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, std::io::Error>>> {
        // Small files of this machine; nothing else waits in this process.
        let Some(document) = self.next.pop_front() else { return Poll::Ready(None) };
        match self.line(&document) {
            Ok(line) => {
                (self.on_sent)(line.len() as u64);
                Poll::Ready(Some(Ok(Frame::data(line))))
            }
            Err(error) => {
                if let Ok(mut failed) = self.failed.lock() {
                    *failed = Some(error);
                }
                Poll::Ready(Some(Err(std::io::Error::other("a document cannot be read"))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.next.is_empty()
    }
}

/// Why a push did not come to its end.
#[derive(Debug, thiserror::Error)]
pub enum NotPushed {
    /// A document of this machine.
    #[error(transparent)]
    Document(#[from] ServedError),
    /// The control plane.
    #[error(transparent)]
    Remote(#[from] NotAnswered),
}

impl Remote {
    /// Sends a release. Nothing of it counts before all of it is there and verified.
    pub async fn push(&self, documents: Documents) -> Result<Pushed, NotPushed> {
        let failed = Failed::clone(&documents.failed);
        let request = self
            .request(Method::POST, "/v1/releases")?
            .header(CONTENT_TYPE, "application/x-ndjson")
            .timeout(PUSH_WITHIN)
            .body(reqwest::Body::wrap(documents));
        let sent = match request.send().await {
            Ok(response) => self.read(response).await,
            Err(error) if error.is_timeout() => {
                Err(NotAnswered::TooSlow { at: self.base.clone(), within: PUSH_WITHIN })
            }
            Err(error) => Err(self.failed(error)),
        };
        match failed.lock().ok().and_then(|mut failed| failed.take()) {
            Some(error) => Err(error.into()),
            None => Ok(sent?),
        }
    }
}
