//! An HTTP request is answered as expected.
//!
//! One request over a connection of its own, HTTP/1.1, no proxy: what answers at this address is what is asked about. So
//! a redirect is a failure, unless the probe says that it is followed or that a redirect is what it wants; then each hop
//! is a request of its own, a few at most, all within the one deadline of the caller. A body is read as far as it is
//! needed and no further.

use http_body_util::{BodyExt, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::header::LOCATION;
use hyper::{Response, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use nixfleet_core::model::probe::{HttpProbe, Redirects, StatusRange, TlsTrust};
use nixfleet_sys::text::chain;
use reqwest::Url;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::JoinSet;

use super::{Answer, tcp, tls};

/// Of a body in which a text is looked for; a health page has some hundred bytes.
const BODY_BYTES_MAX: usize = 1 << 20;
/// Redirects in a row that are followed: to TLS, to the right name, to the login page, and some to spare. More is a circle.
const HOPS_MAX: u32 = 5;
/// Of an address that is shown, in characters; evidence is one short line.
const SHOWN_MAX: usize = 120;

/// Whether the server answers with a good status and, if asked for, the text; the caller has the deadline.
pub(super) async fn ask(probe: &HttpProbe) -> Answer {
    let HttpProbe { url, status: StatusRange { min, max }, body_contains, tls, redirects } = probe;
    let mut answer = get(url, tls, *redirects).await?;
    let status = answer.status;
    let wants_a_redirect = *min >= 300;
    if !wants_a_redirect {
        answer.stays_here()?;
    }
    if !(*min..=*max).contains(&status.as_u16()) {
        return Err(format!("status {status}"));
    }
    let Some(text) = body_contains else { return Ok(format!("status {status}")) };
    let body = answer.body(BODY_BYTES_MAX).await?;
    // `windows` of 0 is no number of windows; an empty text is in every body.
    let has = text.is_empty() || body.bytes.windows(text.len()).any(|window| window == text.as_bytes());
    match (has, body.end) {
        (true, _) => Ok(format!("status {status}, and the text is in the body")),
        (false, End::Reached) => Err(format!("status {status}, and the text is not in the body")),
        (false, End::NotReached) => Err(format!(
            "status {status}, and the text is not in the first {BODY_BYTES_MAX} bytes of the body"
        )),
    }
}

/// An answer whose body is not read yet.
pub(super) struct Got {
    /// Its status.
    pub(super) status: StatusCode,
    /// Where it sends us instead; `None` for every answer that is no redirect.
    elsewhere: Option<Elsewhere>,
    body: Incoming,
    /// Drives the connection, and ends with us, whatever the other side does.
    _driver: JoinSet<()>,
}

/// A body, or its beginning.
pub(super) struct Body {
    /// At most as many as were asked for.
    pub(super) bytes: Vec<u8>,
    /// Whether that is all of it.
    pub(super) end: End,
}

/// Whether a body was read to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    Reached,
    NotReached,
}

/// Where a redirect sends us; the error is what is wrong with its `Location`.
type Elsewhere = Result<Url, &'static str>;

impl Got {
    /// An error that names the other address if this is a redirect.
    pub(super) fn stays_here(&self) -> Result<(), String> {
        let status = self.status;
        match &self.elsewhere {
            None => Ok(()),
            Some(Err(why)) => Err(format!("status {status}, and {why}")),
            Some(Ok(to)) => Err(format!(
                "status {status} sends us to {}; ask that address, or let the probe follow redirects",
                shown(to)
            )),
        }
    }

    /// The body, as far as `bytes_max`; one that is torn is an error.
    pub(super) async fn body(&mut self, bytes_max: usize) -> Result<Body, String> {
        let mut bytes = Vec::new();
        while let Some(frame) = self.body.frame().await {
            let frame = frame.map_err(|error| format!("the body cannot be read: {}", chain(&error)))?;
            // Trailers are no part of the body.
            let Ok(chunk) = frame.into_data() else { continue };
            let room = bytes_max.saturating_sub(bytes.len());
            bytes.extend_from_slice(&chunk[..chunk.len().min(room)]);
            if chunk.len() > room {
                return Ok(Body { bytes, end: End::NotReached });
            }
        }
        Ok(Body { bytes, end: End::Reached })
    }
}

/// Asks for `url`, plainly or by TLS as it says, and for what it redirects to if that is followed. Every server on the
/// way is believed by the same `trust`.
pub(super) async fn get(url: &str, trust: &TlsTrust, redirects: Redirects) -> Result<Got, String> {
    let mut got = get_once(url, trust).await?;
    match redirects {
        Redirects::Refuse => return Ok(got),
        Redirects::Follow => {}
    }
    let mut is_tls = url.starts_with("https://");
    for _ in 0..HOPS_MAX {
        let to = match got.elsewhere {
            None => return Ok(got),
            Some(Err(why)) => return Err(format!("status {}, and {why}", got.status)),
            Some(Ok(to)) => to,
        };
        if is_tls && to.scheme() != "https" {
            let to = shown(&to);
            return Err(format!("a redirect goes from https to {to}, without TLS; it is not followed"));
        }
        is_tls = to.scheme() == "https";
        let next = get_once(to.as_str(), trust).await;
        got = next.map_err(|why| format!("{why} (redirected to {})", shown(&to)))?;
    }
    match &got.elsewhere {
        None => Ok(got),
        Some(_) => {
            Err(format!("more than {HOPS_MAX} redirects in a row; the last answer has status {}", got.status))
        }
    }
}

/// One request.
async fn get_once(url: &str, trust: &TlsTrust) -> Result<Got, String> {
    let target = Target::read(url)?;
    let stream = tcp::open(&target.address).await?;
    let response = match target.scheme {
        Scheme::Plain => request(stream, &target).await,
        Scheme::Tls => request(tls::wrap(stream, &target.host, trust).await?, &target).await,
    };
    let (response, driver) = response?;
    let elsewhere = elsewhere(url, &response);
    Ok(Got { status: response.status(), elsewhere, body: response.into_body(), _driver: driver })
}

/// Where the answer sends whoever asked for `url`. The other statuses from 300 to 399 name nothing to go on with.
fn elsewhere(url: &str, response: &Response<Incoming>) -> Option<Elsewhere> {
    match response.status().as_u16() {
        301 | 302 | 303 | 307 | 308 => match response.headers().get(LOCATION) {
            Some(to) => Some(location(url, to.as_bytes())),
            None => Some(Err("it redirects without a Location")),
        },
        _ => None,
    }
}

/// The address that a `Location` means in an answer from `url`; it may be a relative one.
fn location(url: &str, location: &[u8]) -> Elsewhere {
    const UNREADABLE: &str = "it redirects to an address that cannot be read";
    let text = str::from_utf8(location).map_err(|_| UNREADABLE)?;
    let to = Url::parse(url).and_then(|url| url.join(text)).map_err(|_| UNREADABLE)?;
    if matches!(to.scheme(), "http" | "https") {
        Ok(to)
    } else {
        Err("it redirects to something other than HTTP")
    }
}

/// The address without what may be secret in it: user, password, query and fragment.
fn shown(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
    let whole = format!("{}://{host}{port}{}", url.scheme(), url.path());
    whole.chars().take(SHOWN_MAX).collect()
}

type Answered = (Response<Incoming>, JoinSet<()>);

async fn request<S>(stream: S, target: &Target) -> Result<Answered, String>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = handshake.map_err(|error| chain(&error))?;
    let mut driver = JoinSet::new();
    driver.spawn(async move { drop(connection.await) });
    let request = hyper::Request::get(&target.path)
        .header(hyper::header::HOST, &target.authority)
        .header(hyper::header::CONNECTION, "close")
        .header(hyper::header::USER_AGENT, "nixfleet-agent")
        .body(Empty::<Bytes>::new())
        .map_err(|error| error.to_string())?;
    let response = sender.send_request(request).await.map_err(|error| chain(&error))?;
    Ok((response, driver))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scheme {
    Plain,
    Tls,
}

/// A URL taken apart.
#[derive(Debug, PartialEq, Eq)]
struct Target {
    scheme: Scheme,
    /// `host` or `host:port`, as the server is told.
    authority: String,
    /// The host alone; an IPv6 address without its brackets.
    host: String,
    /// `host:port`, to connect to.
    address: String,
    /// The path and the query.
    path: String,
}

impl Target {
    fn read(url: &str) -> Result<Self, String> {
        let uri: Uri = url.parse().map_err(|_| "the URL cannot be read".to_owned())?;
        let (scheme, port) = match uri.scheme_str() {
            Some("http") => (Scheme::Plain, 80),
            Some("https") => (Scheme::Tls, 443),
            Some(_) | None => return Err("the URL begins with neither http:// nor https://".to_owned()),
        };
        let authority = uri.authority().ok_or("the URL names no host")?;
        if authority.as_str().contains('@') {
            return Err(
                "the URL carries a user or a password, which every reader of the release sees".to_owned()
            );
        }
        let host = authority.host();
        if host.is_empty() {
            return Err("the URL names no host".to_owned());
        }
        Ok(Self {
            scheme,
            authority: authority.as_str().to_owned(),
            host: host.trim_matches(['[', ']']).to_owned(),
            address: format!("{host}:{}", authority.port_u16().unwrap_or(port)),
            path: uri.path_and_query().map_or("/", |path| path.as_str()).to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_url_says_whom_to_connect_to_and_whom_to_expect() {
        let target = |url| Target::read(url).expect("a URL");
        let plain = target("http://localhost:8000/a?b=c");
        assert_eq!((plain.scheme, plain.address.as_str()), (Scheme::Plain, "localhost:8000"));
        assert_eq!((plain.path.as_str(), plain.authority.as_str()), ("/a?b=c", "localhost:8000"));
        let six = target("https://[::1]");
        assert_eq!((six.scheme, six.address.as_str(), six.host.as_str()), (Scheme::Tls, "[::1]:443", "::1"));
        assert_eq!((six.path.as_str(), six.authority.as_str()), ("/", "[::1]"));
    }

    #[test]
    fn what_is_no_url_of_a_server_is_refused_and_a_password_is_not_repeated() {
        for bad in ["", "localhost", "ftp://x/", "http:///x", "http://", "/x", "https:x"] {
            assert!(Target::read(bad).is_err(), "{bad}");
        }
        let said = Target::read("http://me:secret@x/").expect_err("it carries a password");
        assert!(!said.contains("secret"), "{said}");
    }

    proptest! {
        #[test]
        fn no_text_stops_us(text in any::<String>(), rest in any::<String>()) {
            let _ = Target::read(&text);
            let _ = Target::read(&format!("http://{rest}"));
        }

        #[test]
        fn no_location_stops_us_and_none_that_is_shown_has_secrets(bytes in any::<Vec<u8>>(), path in "[a-z/.%]{0,20}") {
            let _ = location("https://localhost:8443/a/b?c", &bytes);
            let to = format!("//user:hunter2@localhost/{path}?token=hunter2#hunter2");
            let shown = shown(&location("https://localhost/", to.as_bytes()).expect("an address"));
            prop_assert!(shown.starts_with("https://localhost/") && !shown.contains("hunter2"), "{}", shown);
        }
    }
}
