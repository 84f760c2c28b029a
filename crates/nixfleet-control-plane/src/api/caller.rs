//! Who asks: a host, by the key of its certificate, or a person, by a token.

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, header};
use nixfleet_core::model::names::HostName;
use nixfleet_core::model::time::UnixMs;
use nixfleet_core::wire::CLOCK_HEADER;

use super::App;
use super::problem::Problem;
use crate::heard::Sign;
use crate::serve::Peer;
use crate::store::tokens::{Person, Role};

/// How a person gets in.
const MAKE_TOKEN: &str =
    "`nixfleet-control-plane token add NAME --role viewer|operator` makes one, where the server runs";

/// The host at the other end, by a release that is served.
#[derive(Debug, Clone)]
pub(super) struct Host(pub HostName);

/// A person who may look.
#[derive(Debug, Clone)]
pub(super) struct Viewer(
    #[expect(dead_code, reason = "who looks is not recorded; who acts is")] pub(super) Person,
);

/// A person who may act.
#[derive(Debug, Clone)]
pub(super) struct Operator(pub Person);

impl FromRequestParts<App> for Host {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        let peer = parts.extensions.get::<Peer>();
        let Some((address, shown)) = peer.and_then(|peer| Some((peer.address, peer.shown.clone()?))) else {
            return Err(Problem::unauthenticated(
                "hosts show a certificate of their own key, and there was none",
            ));
        };
        let id = &shown.key;
        if let Some(host) = shown.host(&app.store).await? {
            app.heard.note(&host, Sign::of((app.clock)(), clock_of(&parts.headers)));
            return Ok(Self(host));
        }

        app.strangers.note(&app.store, id, address, (app.clock)()).await;
        Err(Problem::unknown_host(format!("the key is {id}; a release that names it lets the host in")))
    }
}

impl FromRequestParts<App> for Viewer {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        person(&parts.headers, app).await.map(Self)
    }
}

impl FromRequestParts<App> for Operator {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        let person = person(&parts.headers, app).await?;
        match person.role {
            Role::Operator => Ok(Self(person)),
            Role::Viewer => {
                let detail = format!("the token `{}` may look and not act", person.name);
                Err(Problem::forbidden(detail)
                    .hint(format!("acting needs the token of an operator: {MAKE_TOKEN}")))
            }
        }
    }
}

/// What the clock of whoever asks says, if that is said.
fn clock_of(headers: &HeaderMap) -> Option<UnixMs> {
    let text = headers.get(CLOCK_HEADER)?.to_str().ok()?;
    UnixMs::new(text.parse().ok()?).ok()
}

/// Whose token it is.
pub(super) async fn person(headers: &HeaderMap, app: &App) -> Result<Person, Problem> {
    let bearer = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let Some(token) = bearer.and_then(|value| value.strip_prefix("Bearer ")) else {
        return Err(
            Problem::unauthenticated("people send a token: `Authorization: Bearer TOKEN`").hint(MAKE_TOKEN)
        );
    };
    let person = app.store.person(token.trim()).await?;
    person.ok_or_else(|| {
        Problem::unauthenticated("the token is not known here; it may have been removed").hint(MAKE_TOKEN)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_is_a_number_of_milliseconds_or_was_not_said() {
        let of = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(CLOCK_HEADER, text.parse().expect("a header"));
            clock_of(&headers)
        };
        assert_eq!(of("1793923200000"), UnixMs::new(1_793_923_200_000).ok());
        for other in ["", "-1", "noon", "1.5", "9007199254740993", "99999999999999999999", "\u{fc}"] {
            assert_eq!(of(other), None, "{other}");
        }
        assert_eq!(clock_of(&HeaderMap::new()), None);
    }
}
