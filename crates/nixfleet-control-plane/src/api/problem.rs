//! Errors for callers, as problem documents (RFC 9457): one message for the caller, another one for our log.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use nixfleet_core::rollout::NotFolded;
use nixfleet_core::wire::people::{self as wire, TroubleKind};
use nixfleet_sys::random;

use crate::say;
use crate::trouble::text;

/// What went wrong, for the caller.
#[derive(Debug)]
pub struct Problem(wire::Problem);

macro_rules! problems {
    ($($(#[$doc:meta])* $name:ident = $status:ident, $kind:literal, $title:literal;)*) => {
        impl Problem {
            $($(#[$doc])*
            pub fn $name(detail: impl Into<String>) -> Self {
                Self(wire::Problem {
                    kind: concat!("urn:nixfleet:problem:", $kind).into(),
                    title: $title.into(),
                    status: StatusCode::$status.as_u16(),
                    detail: cut(detail.into()),
                    hint: None,
                })
            })*
        }
    };
}

problems! {
    /// The request is not what this endpoint takes.
    bad_request = BAD_REQUEST, "bad-request", "The request cannot be understood";
    /// Nobody is known to have sent it.
    unauthenticated = UNAUTHORIZED, "unauthenticated", "It is not known who asks";
    /// A host's key that no release names.
    unknown_host = FORBIDDEN, "unknown-host", "No release that is served names this key";
    /// Somebody who may not do that.
    forbidden = FORBIDDEN, "forbidden", "This is not allowed to whoever asks";
    /// There is no such thing.
    not_found = NOT_FOUND, "not-found", "There is no such thing";
    /// There is, but not with this method.
    wrong_method = METHOD_NOT_ALLOWED, "wrong-method", "This cannot be done with this method";
    /// It took too long to come.
    too_slow = REQUEST_TIMEOUT, "too-slow", "The request took too long to arrive";
    /// It does not fit to how things are.
    conflict = CONFLICT, "conflict", "This does not fit to how things are";
    /// Too much of it.
    too_large = PAYLOAD_TOO_LARGE, "too-large", "The request is larger than this endpoint takes";
    /// It is not JSON, by its own word.
    wrong_type = UNSUPPORTED_MEDIA_TYPE, "wrong-content-type", "The request has another content type";
    /// It was understood and refused.
    refused = UNPROCESSABLE_ENTITY, "refused", "The request was understood, and is refused";
    /// A host does more at the same time than an agent does.
    too_many = TOO_MANY_REQUESTS, "too-many", "This is asked too often at the same time";
    /// We are ending or full, or our database is away.
    unavailable = SERVICE_UNAVAILABLE, "unavailable", "This cannot be answered at the moment";
}

/// Whoever cannot be answered at the moment is asked to come again after so many seconds, and up to so many more, so that they
/// do not come together: a restart, or a queue that was full, is over by then. Agents add a pause of their own.
const AGAIN_AFTER_SECS: u64 = 5;
const AGAIN_SPAN_SECS: u64 = 15;

/// The most characters of a detail: what it says of a request may repeat a piece of it, which may be long.
const DETAIL_CHARS_MAX: usize = 500;

fn cut(detail: String) -> String {
    match detail.char_indices().nth(DETAIL_CHARS_MAX) {
        None => detail,
        Some((end, _)) => format!("{}…", &detail[..end]),
    }
}

impl Problem {
    /// With what can be done.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.0.hint = Some(hint.into());
        self
    }

    /// What was asked for does not fit to how things are.
    pub fn unfit(unfit: &NotFolded) -> Self {
        match unfit {
            NotFolded::NoHost(_) | NotFolded::NoChannel(_) | NotFolded::NoWave { .. } => {
                Self::not_found(unfit.to_string())
            }
            NotFolded::NotCurrent(_)
            | NotFolded::NotNewer { .. }
            | NotFolded::Status { .. }
            | NotFolded::NotNextWave { .. }
            | NotFolded::NotFailed(_)
            | NotFolded::NotHeld(_) => Self::conflict(unfit.to_string()),
        }
    }

    /// The database does not do what it should. The caller learns what that means; `error` goes to our log.
    pub fn not_kept(kind: Option<TroubleKind>, error: &(dyn std::error::Error + 'static)) -> Self {
        match kind {
            Some(kind @ (TroubleKind::DatabaseFull | TroubleKind::DatabaseAway)) => {
                say::error_again("a request could not be answered", error);
                Self::unavailable(text(kind))
            }
            Some(TroubleKind::DatabaseFailing | TroubleKind::RootEnding | TroubleKind::PlanObjected)
            | None => Self::ours(error),
        }
    }

    /// Something of ours does not work. The caller learns that, and no more; `error` goes to our log.
    pub fn ours(error: &(dyn std::error::Error + 'static)) -> Self {
        say::error_again("a request could not be answered", error);
        Self::unavailable("something of the server does not work; its log says what. Try again later")
    }
}

impl From<crate::store::StoreError> for Problem {
    fn from(error: crate::store::StoreError) -> Self {
        match error {
            crate::store::StoreError::Unfit(unfit) => Self::unfit(&unfit),
            error => Self::not_kept(error.trouble(), &error),
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.0.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, Json(self.0)).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if matches!(status, StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS) {
            let secs = AGAIN_AFTER_SECS + random::number() % AGAIN_SPAN_SECS;
            headers.insert(header::RETRY_AFTER, HeaderValue::from(secs));
        }
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}
