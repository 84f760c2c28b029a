//! The log as it grows, as server-sent events: each with its number as the id, so that a browser that comes back goes on
//! where it was.

use std::convert::Infallible;
use std::fmt::Write;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use hyper::body::Frame;
use serde::Deserialize;
use tokio::sync::{Semaphore, SemaphorePermit, mpsc};
use tokio::time::timeout;

use super::App;
use super::asked::Wanted;
use super::caller::{Viewer, person};
use super::people::event_view;
use super::problem::Problem;
use crate::say;
use crate::store::StoreError;
use crate::store::fleet::EventFilter;

/// Live streams at the same time: people who watch, not machines.
const STREAMS_MAX: usize = 200;
static STREAMS: Semaphore = Semaphore::const_new(STREAMS_MAX);
/// Events that are read at once.
const PAGE: u32 = 200;
/// A comment line in silence, so that whoever is gone is noticed and proxies keep the connection.
const PING_EVERY: Duration = Duration::from_secs(20);
/// A reader that takes nothing for so long is cut off; it comes back and goes on.
const TAKEN_WITHIN: Duration = Duration::from_mins(1);
/// Pieces that wait for the connection.
const PIECES_MAX: usize = 4;

/// From where on.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct From {
    after: Option<u64>,
}

/// Events above `after`, or above the `Last-Event-ID` of a browser that comes back, or from now on.
pub(super) async fn live(
    _: Viewer,
    State(app): State<App>,
    headers: HeaderMap,
    Wanted(From { after }): Wanted<From>,
) -> Result<Response, Problem> {
    let last = headers.get("last-event-id").and_then(|id| id.to_str().ok()?.parse().ok());
    let Ok(turn) = STREAMS.try_acquire() else {
        return Err(Problem::unavailable(format!("{STREAMS_MAX} people watch already")));
    };
    let after = match last.or(after) {
        Some(after) => after,
        None => app.store.newest_event().await?,
    };
    let (pieces, taken) = mpsc::channel(PIECES_MAX);
    tokio::spawn(stream(app, headers, after, pieces, turn));
    let kind = HeaderValue::from_static("text/event-stream");
    Ok(([(header::CONTENT_TYPE, kind)], Body::new(Pieces(taken))).into_response())
}

async fn stream(
    app: App,
    headers: HeaderMap,
    mut after: u64,
    pieces: mpsc::Sender<Bytes>,
    _turn: SemaphorePermit<'static>,
) {
    let (mut changed, mut ending) = (app.changed.clone(), app.ending.clone());
    loop {
        changed.mark_unchanged();
        let piece = match page(&app, &mut after).await {
            Ok(page) => page,
            Err(error) => return say::error("a live stream ends", &error),
        };
        // A stream may go on for months, and a token be removed meanwhile. Who was passed over by a fault comes back.
        if person(&headers, &app).await.is_err() {
            return;
        }
        if !piece.is_empty() {
            if !matches!(timeout(TAKEN_WITHIN, pieces.send(piece.into())).await, Ok(Ok(()))) {
                return;
            }
            continue;
        }
        let ping = tokio::select! {
            // Safe to cancel: a change stays noted. Closed is the end.
            closed = changed.changed() => match closed {
                Ok(()) => None,
                Err(_) => return,
            },
            // Safe to cancel. Whoever watched is gone: the place is somebody else's at once, and not after the next ping.
            () = pieces.closed() => return,
            // Safe to cancel.
            _ = ending.wait_for(|ending| *ending) => return,
            () = tokio::time::sleep(PING_EVERY) => Some(Bytes::from_static(b": still here\n\n")),
        };
        if let Some(ping) = ping
            && !matches!(timeout(TAKEN_WITHIN, pieces.send(ping)).await, Ok(Ok(())))
        {
            return;
        }
    }
}

async fn page(app: &App, after: &mut u64) -> Result<String, StoreError> {
    let events = app.store.events(&EventFilter { after: *after, host: None }, PAGE).await?;
    let mut out = String::new();
    for event in events {
        *after = event.id;
        let (id, kind, view) = (event.id, event.fact.kind(), event_view(event));
        // JSON has no newline in it.
        let json = serde_json::to_string(&view).expect("texts and numbers are always JSON");
        // Writing to a string cannot fail.
        let _ = write!(out, "id: {id}\nevent: {kind}\ndata: {json}\n\n");
    }
    Ok(out)
}

/// A body of pieces as they come.
struct Pieces(mpsc::Receiver<Bytes>);

impl hyper::body::Body for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.poll_recv(context).map(|piece| piece.map(|piece| Ok(Frame::data(piece))))
    }
}
