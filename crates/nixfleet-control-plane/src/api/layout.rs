//! The static layout of a release source, as any web server would serve it. A host gets what all hosts get, and its own
//! entry; people get all of it.

use aws_lc_rs::digest::{SHA256, digest};
use axum::extract::{FromRequestParts, Path, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use data_encoding::HEXLOWER;
use nixfleet_core::model::layout;
use nixfleet_core::model::names::{ChannelName, HostName, Seq};

use super::caller::{Host, Viewer};
use super::problem::Problem;
use super::{App, stem};

/// A host or a person.
pub(super) enum Reader {
    /// A host; it reads its own entries only (lesson 35).
    Host(HostName),
    /// A person.
    Person,
}

impl FromRequestParts<App> for Reader {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        if parts.headers.contains_key(header::AUTHORIZATION) {
            Viewer::from_request_parts(parts, app).await.map(|_| Self::Person)
        } else {
            Host::from_request_parts(parts, app).await.map(|Host(host)| Self::Host(host))
        }
    }
}

pub(super) async fn root(
    _: Reader,
    State(app): State<App>,
    headers: HeaderMap,
    Path(document): Path<String>,
) -> Result<Response, Problem> {
    let version = stem(&document)?.parse().map_err(|_| Problem::not_found("roots have a number"))?;
    serve(&app, &headers, &layout::root(version)).await
}

pub(super) async fn latest(
    _: Reader,
    State(app): State<App>,
    headers: HeaderMap,
    Path(channel): Path<String>,
) -> Result<Response, Problem> {
    let channel = channel_named(&channel)?;
    let document = app.store.latest(&channel).await?;
    answer(&headers, &layout::latest(&channel), document)
}

pub(super) async fn release(
    _: Reader,
    State(app): State<App>,
    headers: HeaderMap,
    Path((channel, seq)): Path<(String, String)>,
) -> Result<Response, Problem> {
    serve(&app, &headers, &layout::release(&channel_named(&channel)?, seq_of(&seq)?)).await
}

pub(super) async fn entry(
    reader: Reader,
    State(app): State<App>,
    headers: HeaderMap,
    Path((channel, seq, document)): Path<(String, String, String)>,
) -> Result<Response, Problem> {
    let host: HostName = stem(&document)?.parse().map_err(|error| Problem::not_found(format!("{error}")))?;
    match reader {
        Reader::Host(own) if own != host => {
            return Err(Problem::forbidden(format!(
                "this is the key of host {own}, which reads its own entry only"
            )));
        }
        Reader::Host(_) | Reader::Person => {}
    }
    serve(&app, &headers, &layout::entry(&channel_named(&channel)?, seq_of(&seq)?, &host)).await
}

fn channel_named(text: &str) -> Result<ChannelName, Problem> {
    text.parse().map_err(|error| Problem::not_found(format!("{error}")))
}

fn seq_of(text: &str) -> Result<Seq, Problem> {
    let number = text.parse().ok().and_then(|number| Seq::new(number).ok());
    number.ok_or_else(|| Problem::not_found("releases have a number"))
}

/// A document, or word that it is the one that is known.
async fn serve(app: &App, headers: &HeaderMap, path: &str) -> Result<Response, Problem> {
    let bytes = app.store.document(path).await?;
    answer(headers, path, bytes)
}

fn answer(headers: &HeaderMap, path: &str, bytes: Option<Vec<u8>>) -> Result<Response, Problem> {
    let bytes = bytes.ok_or_else(|| Problem::not_found(format!("`{path}` is not served here")))?;
    let etag = format!("\"{}\"", HEXLOWER.encode(digest(&SHA256, &bytes).as_ref()));
    let known =
        headers.get_all(header::IF_NONE_MATCH).iter().any(|value| value.as_bytes() == etag.as_bytes());
    let is_json = std::path::Path::new(path).extension().is_some_and(|extension| extension == "json");
    let kind = if is_json { "application/json" } else { "text/plain" };
    let mut response = if known { StatusCode::NOT_MODIFIED.into_response() } else { bytes.into_response() };
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    if let Ok(etag) = HeaderValue::from_str(&etag) {
        headers.insert(header::ETAG, etag);
    }
    Ok(response)
}
