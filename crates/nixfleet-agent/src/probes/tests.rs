use super::*;
use crate::activation::linux::LinuxBackend;
use nixfleet_core::model::probe::{Finite, MetricLimit, MetricProbe, Redirects};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// A server that answers every request with these bytes; its URL. It keeps the connection open, as servers do.
async fn server(answer: impl Into<Vec<u8>>) -> String {
    let answer = answer.into();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound");
    tokio::spawn(async move {
        let mut open = Vec::new();
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.read(&mut [0; 1024]).await;
            let _ = stream.write_all(&answer).await;
            open.push(stream);
        }
    });
    format!("http://{address}/health")
}

fn page(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

/// What a person's activation asks, with a limit that a busy machine keeps to.
async fn asked(probe: Probe) -> Answer {
    let prober = Prober::of(&probe, Holder::of(&LinuxBackend::new()));
    Prober { limit: LIMIT, ..prober }.ask(&LinuxBackend::new()).await
}

async fn asked_kind(kind: ProbeKind, limit: Duration) -> Answer {
    Prober::new(kind, limit, Holder::of(&LinuxBackend::new())).ask(&LinuxBackend::new()).await
}

fn http(url: String, status: StatusRange, body_contains: Option<&str>) -> ProbeKind {
    let body_contains = body_contains.map(str::to_owned);
    ProbeKind::Http(HttpProbe {
        url,
        status,
        body_contains,
        tls: TlsTrust::SystemRoots,
        redirects: Redirects::Refuse,
    })
}

/// A plain one of a person's activation.
fn plain(url: String) -> Probe {
    Probe::Http { url, ca_file: None, redirects: Redirects::Refuse }
}

/// One that follows redirects to a page that says `ready`.
fn following(url: String) -> ProbeKind {
    let (status, body_contains) = (StatusRange::default(), Some("ready".to_owned()));
    ProbeKind::Http(HttpProbe {
        url,
        status,
        body_contains,
        tls: TlsTrust::SystemRoots,
        redirects: Redirects::Follow,
    })
}

const LIMIT: Duration = Duration::from_mins(1);

#[tokio::test]
async fn an_http_probe_passes_on_200_and_says_the_status_otherwise() {
    let url = server("HTTP/1.1 204 No Content\r\n\r\n").await;
    assert_eq!(asked(plain(url)).await, Ok("status 204 No Content".to_owned()));
    let url = server("HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n").await;
    assert_eq!(asked(plain(url)).await, Err("status 503 Service Unavailable".to_owned()));
    let url = server("not http at all\r\n\r\n").await;
    assert!(asked(plain(url)).await.is_err());
}

/// A redirect to there.
fn sends_to(status: &str, location: &str) -> String {
    format!("HTTP/1.1 {status}\r\nlocation: {location}\r\ncontent-length: 0\r\n\r\n")
}

#[tokio::test]
async fn a_redirect_is_a_failure_that_names_the_other_address_without_its_secrets() {
    let url = server(sends_to("302 Found", "https://me:secret@example.org:8443/login?token=secret#x")).await;
    let said = asked(plain(url.clone())).await.expect_err("what answers there is not what was asked about");
    assert!(said.starts_with("status 302 Found sends us to https://example.org:8443/login; "), "{said}");
    assert!(said.ends_with("let the probe follow redirects"), "{said}");
    let looked_for = asked_kind(http(url, StatusRange::default(), Some("ready")), LIMIT).await;
    assert_eq!(looked_for, Err(said));
    let nowhere = server("HTTP/1.1 301 Moved Permanently\r\ncontent-length: 0\r\n\r\n").await;
    let said = asked(plain(nowhere)).await.expect_err("nor is this");
    assert_eq!(said, "status 301 Moved Permanently, and it redirects without a Location");
}

#[tokio::test]
async fn a_redirect_is_good_where_nothing_else_was_wanted() {
    let url = server(sends_to("308 Permanent Redirect", "https://example.org/")).await;
    let wanted = StatusRange { min: 301, max: 308 };
    assert_eq!(
        asked_kind(http(url.clone(), wanted, None), LIMIT).await,
        Ok("status 308 Permanent Redirect".to_owned())
    );
    // A status like 304 names nothing to go on with.
    let unchanged = server("HTTP/1.1 304 Not Modified\r\n\r\n").await;
    assert!(asked(plain(unchanged)).await.is_ok());
}

#[tokio::test]
async fn redirects_are_followed_where_the_probe_says_so_and_the_last_answer_counts() {
    let well = server(page("ready")).await;
    let ill = server("HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n").await;
    let (to_well, to_ill) = (
        server(sends_to("301 Moved Permanently", &well)).await,
        server(sends_to("307 Temporary Redirect", &ill)).await,
    );
    let twice = server(sends_to("302 Found", &to_well)).await;
    assert_eq!(
        asked_kind(following(twice), LIMIT).await,
        Ok("status 200 OK, and the text is in the body".to_owned())
    );
    assert_eq!(asked_kind(following(to_ill), LIMIT).await, Err("status 503 Service Unavailable".to_owned()));
    let gone = server(sends_to("302 Found", "http://127.0.0.1:1/x?token=secret")).await;
    let said = asked_kind(following(gone), LIMIT).await.expect_err("nobody listens there");
    assert!(said.contains("refused") && said.ends_with("(redirected to http://127.0.0.1:1/x)"), "{said}");
}

#[tokio::test]
async fn a_circle_of_redirects_ends_and_so_does_one_to_something_else_than_http() {
    // A relative address is one at the same server, which answers everything alike.
    let circle = server(sends_to("303 See Other", "/health/../health?again")).await;
    let said = asked_kind(following(circle), LIMIT).await.expect_err("it never ends");
    assert_eq!(said, "more than 5 redirects in a row; the last answer has status 303 See Other");
    for (to, why) in [
        ("ftp://example.org/", "it redirects to something other than HTTP"),
        ("file:///etc/shadow", "it redirects to something other than HTTP"),
        ("http://[::1", "it redirects to an address that cannot be read"),
    ] {
        let url = server(sends_to("302 Found", to)).await;
        let said = asked_kind(following(url), LIMIT).await.expect_err(to);
        assert_eq!(said, format!("status 302 Found, and {why}"));
    }
    let with_password = server(sends_to("302 Found", "http://me:secret@127.0.0.1:1/")).await;
    let said = asked_kind(following(with_password), LIMIT).await.expect_err("whose password?");
    assert!(!said.contains("secret") && said.contains("a user or a password"), "{said}");
}

#[tokio::test]
async fn a_status_that_is_wanted_is_good_whatever_it_is() {
    let url = server("HTTP/1.1 401 Unauthorized\r\ncontent-length: 0\r\n\r\n").await;
    assert!(asked_kind(http(url, StatusRange { min: 401, max: 401 }, None), LIMIT).await.is_ok());
}

#[tokio::test]
async fn a_text_is_looked_for_in_the_whole_body_and_the_body_is_not_repeated() {
    let url = server(page("all the secrets: ready")).await;
    let with = |text| http(url.clone(), StatusRange::default(), Some(text));
    assert!(asked_kind(with("ready"), LIMIT).await.is_ok());
    assert!(asked_kind(with(""), LIMIT).await.is_ok());
    let said = asked_kind(with("steady"), LIMIT).await.expect_err("it is not in there");
    assert_eq!(said, "status 200 OK, and the text is not in the body");

    let chunked = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nrea\r\n2\r\ndy\r\n0\r\n\r\n";
    let url = server(chunked).await;
    assert!(asked_kind(http(url, StatusRange::default(), Some("ready")), LIMIT).await.is_ok());
}

#[tokio::test]
async fn a_body_without_end_is_read_as_far_as_the_bound_and_a_torn_one_is_a_failure() {
    let mut endless = b"HTTP/1.1 200 OK\r\ncontent-length: 99999999\r\n\r\n".to_vec();
    endless.extend(std::iter::repeat_n(b'x', 3 << 20));
    let url = server(endless).await;
    let said = asked_kind(http(url, StatusRange::default(), Some("y")), LIMIT).await.expect_err("no y");
    assert!(said.contains("first 1048576 bytes"), "{said}");
    let url = server("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n").await;
    assert!(asked_kind(http(url, StatusRange::default(), Some("y")), LIMIT).await.is_err());
}

#[tokio::test]
async fn a_server_that_never_answers_and_one_that_stops_in_the_middle_are_too_slow() {
    let limit = Duration::from_millis(300);
    let url = server("").await;
    let said = asked_kind(http(url, StatusRange::default(), None), limit).await;
    assert_eq!(said, Err("no answer within 0.3 s".to_owned()));
    let url = server("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabc").await;
    let said = asked_kind(http(url, StatusRange::default(), Some("x")), limit).await;
    assert_eq!(said, Err("no answer within 0.3 s".to_owned()));
}

#[tokio::test]
async fn a_tcp_probe_passes_when_somebody_listens() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound").to_string();
    assert!(asked(Probe::Tcp { address }).await.is_ok());
    let said = asked(Probe::Tcp { address: "127.0.0.1:1".into() }).await.expect_err("nobody listens");
    assert!(said.contains("refused"), "{said}");
    assert!(asked(Probe::Tcp { address: "no port here".into() }).await.is_err());
}

#[tokio::test]
async fn a_metric_is_fetched_and_kept_to_its_limit() {
    let url = server(page("# TYPE errors gauge\nerrors{job=\"a\"} 2\nerrors{job=\"b\"} 9\n")).await;
    let most = |metric: &str, most: f64| {
        let good = MetricLimit::AtMost(Finite::try_from(most).expect("finite"));
        let (url, metric) = (url.clone(), metric.to_owned());
        ProbeKind::HttpMetric(MetricProbe {
            url,
            tls: TlsTrust::SystemRoots,
            redirects: Redirects::Refuse,
            metric,
            good,
        })
    };
    assert!(asked_kind(most("errors{job=\"a\"}", 2.0), LIMIT).await.is_ok());
    assert_eq!(asked_kind(most("errors", 5.0), LIMIT).await, Err("9 is not at most 5".to_owned()));
    assert!(asked_kind(most("errors{", 5.0), LIMIT).await.is_err_and(|said| said.contains("NAME")));
    let elsewhere = server(sends_to("302 Found", &url)).await;
    let good = MetricLimit::AtMost(Finite::try_from(9.0).expect("finite"));
    let by_way_of = |redirects| {
        let (url, metric) = (elsewhere.clone(), "errors".to_owned());
        ProbeKind::HttpMetric(MetricProbe { url, tls: TlsTrust::SystemRoots, redirects, metric, good })
    };
    assert!(asked_kind(by_way_of(Redirects::Follow), LIMIT).await.is_ok());
    let said = asked_kind(by_way_of(Redirects::Refuse), LIMIT).await.expect_err("a redirect");
    assert!(said.starts_with("status 302 Found sends us to http://127.0.0.1"), "{said}");
    let url = server(page("<html>please log in</html>")).await;
    let good = MetricLimit::AtMost(Finite::try_from(9.0).expect("finite"));
    let login = MetricProbe {
        url,
        tls: TlsTrust::SystemRoots,
        redirects: Redirects::Refuse,
        metric: "errors".to_owned(),
        good,
    };
    let said = asked_kind(ProbeKind::HttpMetric(login), LIMIT).await.expect_err("no metrics");
    assert!(said.contains("no page of metrics: line 1"), "{said}");
}

#[tokio::test]
async fn a_unit_that_cannot_be_asked_about_is_a_failure() {
    let said = asked(Probe::Unit { unit: "--force".into() }).await.expect_err("no unit");
    assert!(said.contains("is not the whole name of a unit"), "{said}");
}
