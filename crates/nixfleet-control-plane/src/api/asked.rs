//! What is asked for: what the path names, which part of it the query wants, and what was sent, within limits.
//!
//! Each is an extractor whose refusal is a problem document, so that no handler reads a request in a way of its own.

use std::fmt::Display;
use std::str::FromStr;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, header};
use http_body_util::{BodyExt, Limited};
use hyper::body::Body as _;
use nixfleet_core::model::names::{ChannelName, HostName, Seq};
use nixfleet_core::rollout::RolloutId;
use serde::de::DeserializeOwned;
use tokio::time::timeout;

use super::App;
use super::caller::Host;
use super::problem::Problem;
use crate::room::{NoRoom, Taken};
use crate::store::fleet::PAGE_MAX;

/// What the path names.
#[derive(Debug)]
pub(super) struct Named<T>(pub T);

/// What a path can name.
pub(super) trait FromPath: Sized + Send + 'static {
    /// The parameters of the path that name it.
    type Parts: DeserializeOwned + Send;
    /// What they name.
    fn from_path(parts: Self::Parts) -> Result<Self, Problem>;
}

impl FromPath for HostName {
    type Parts = String;
    fn from_path(host: String) -> Result<Self, Problem> {
        named(&host)
    }
}

impl FromPath for ChannelName {
    type Parts = String;
    fn from_path(channel: String) -> Result<Self, Problem> {
        named(&channel)
    }
}

impl FromPath for RolloutId {
    type Parts = (String, String);
    fn from_path((channel, seq): Self::Parts) -> Result<Self, Problem> {
        let channel = named(&channel)?;
        let seq = seq.parse().ok().and_then(|seq| Seq::new(seq).ok());
        let unnamed = || Problem::bad_request("a rollout is named by its channel and the release's number");
        Ok(Self { channel, seq: seq.ok_or_else(unnamed)? })
    }
}

impl<T: FromPath> FromRequestParts<App> for Named<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        let path = Path::<T::Parts>::from_request_parts(parts, app).await;
        let Path(path) = path.map_err(|rejected| Problem::bad_request(rejected.body_text()))?;
        T::from_path(path).map(Self)
    }
}

/// What stands behind the question mark.
#[derive(Debug)]
pub(super) struct Wanted<T>(pub T);

impl<T: DeserializeOwned> FromRequestParts<App> for Wanted<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        let query = Query::<T>::from_request_parts(parts, app).await;
        query.map(|Query(wanted)| Self(wanted)).map_err(|rejected| Problem::bad_request(rejected.body_text()))
    }
}

/// What was sent, read as JSON: at most so many bytes, and within some time.
#[derive(Debug)]
pub(super) struct Sent<T, const BYTES_MAX: usize>(pub T);

impl<T: DeserializeOwned, const BYTES_MAX: usize> FromRequest<App> for Sent<T, BYTES_MAX> {
    type Rejection = Problem;

    async fn from_request(request: Request, app: &App) -> Result<Self, Problem> {
        let (parts, body) = request.into_parts();
        if !is_json(&parts.headers) {
            return Err(Problem::wrong_type("this endpoint takes application/json"));
        }
        let bytes = bytes(body, BYTES_MAX, app.body_within).await?;
        let sent = serde_json::from_slice(&bytes);
        sent.map(Self).map_err(|error| Problem::bad_request(format!("the body: {error}")))
    }
}

/// What a host sent: who it is, then room for it, then what it is.
#[derive(Debug)]
pub(super) struct SentBy<T, const BYTES_MAX: usize> {
    /// The host.
    pub host: HostName,
    /// What it sent.
    pub sent: T,
    /// Given back with the answer.
    _room: Taken,
}

impl<T: DeserializeOwned, const BYTES_MAX: usize> FromRequest<App> for SentBy<T, BYTES_MAX> {
    type Rejection = Problem;

    async fn from_request(request: Request, app: &App) -> Result<Self, Problem> {
        let (mut parts, body) = request.into_parts();
        let Host(host) = Host::from_request_parts(&mut parts, app).await?;
        // One without an end that is known takes the room of the largest; the largest is all that is read.
        let bytes = body.size_hint().upper().and_then(|bytes| usize::try_from(bytes).ok());
        let room = app.room.take(&host, bytes.unwrap_or(BYTES_MAX).min(BYTES_MAX)).await;
        let room = room.map_err(|none| match none {
            NoRoom::OfThisHost => Problem::too_many(none.to_string()),
            NoRoom::AtAll => Problem::unavailable(none.to_string()),
        })?;
        let Sent::<T, BYTES_MAX>(sent) = Sent::from_request(Request::from_parts(parts, body), app).await?;
        Ok(Self { host, sent, _room: room })
    }
}

fn is_json(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    kind.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case("application/json")
}

async fn bytes(body: Body, bytes_max: usize, within: Duration) -> Result<Vec<u8>, Problem> {
    let whole = timeout(within, Limited::new(body, bytes_max).collect()).await;
    let whole = whole.map_err(|_| Problem::too_slow(format!("the body must be here within {within:?}")))?;
    match whole {
        Ok(whole) => Ok(whole.to_bytes().to_vec()),
        Err(error) if error.is::<http_body_util::LengthLimitError>() => {
            Err(Problem::too_large(format!("the body may have {bytes_max} bytes")))
        }
        Err(_) => Err(Problem::bad_request("the body broke off")),
    }
}

/// How many a page may have: what was asked for, if that is allowed.
pub(super) fn limit(asked: Option<u32>) -> Result<u32, Problem> {
    match asked.unwrap_or(100) {
        limit @ 1..=PAGE_MAX => Ok(limit),
        _ => Err(Problem::bad_request(format!("`limit` is a number from 1 to {PAGE_MAX}"))),
    }
}

/// A name, or what is wrong with it.
pub(super) fn named<T: FromStr<Err: Display>>(text: &str) -> Result<T, Problem> {
    text.parse().map_err(|error| Problem::bad_request(format!("{error}")))
}
