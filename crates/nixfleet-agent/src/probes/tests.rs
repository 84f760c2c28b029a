use super::*;
use crate::activation::linux::LinuxBackend;
use nixfleet_core::model::probe::{Finite, MetricLimit, MetricProbe};
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

async fn asked(probe: Probe) -> Answer {
    Prober::of(&probe, Holder::of(&LinuxBackend::new())).ask(&LinuxBackend::new()).await
}

async fn asked_kind(kind: ProbeKind, limit: Duration) -> Answer {
    Prober::new(kind, limit, Holder::of(&LinuxBackend::new())).ask(&LinuxBackend::new()).await
}

fn http(url: String, status: StatusRange, body_contains: Option<&str>) -> ProbeKind {
    let body_contains = body_contains.map(str::to_owned);
    ProbeKind::Http(HttpProbe { url, status, body_contains, tls: TlsTrust::SystemRoots })
}

const LIMIT: Duration = Duration::from_secs(20);

#[tokio::test]
async fn an_http_probe_passes_on_200_and_says_the_status_otherwise() {
    let url = server("HTTP/1.1 204 No Content\r\n\r\n").await;
    assert_eq!(asked(Probe::Http { url }).await, Ok("status 204 No Content".to_owned()));
    let url = server("HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n").await;
    assert_eq!(asked(Probe::Http { url }).await, Err("status 503 Service Unavailable".to_owned()));
    let url = server("not http at all\r\n\r\n").await;
    assert!(asked(Probe::Http { url }).await.is_err());
}

#[tokio::test]
async fn a_redirect_is_an_answer_and_is_not_followed() {
    let nobody = "HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n";
    let url = server(nobody).await;
    assert_eq!(asked(Probe::Http { url: url.clone() }).await, Ok("status 302 Found".to_owned()));
    let strict = http(url, StatusRange { min: 200, max: 299 }, None);
    assert_eq!(asked_kind(strict, LIMIT).await, Err("status 302 Found".to_owned()));
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
        ProbeKind::HttpMetric(MetricProbe { url, tls: TlsTrust::SystemRoots, metric, good })
    };
    assert!(asked_kind(most("errors{job=\"a\"}", 2.0), LIMIT).await.is_ok());
    assert_eq!(asked_kind(most("errors", 5.0), LIMIT).await, Err("9 is not at most 5".to_owned()));
    assert!(asked_kind(most("errors{", 5.0), LIMIT).await.is_err_and(|said| said.contains("NAME")));
    let url = server(page("<html>please log in</html>")).await;
    let good = MetricLimit::AtMost(Finite::try_from(9.0).expect("finite"));
    let login = MetricProbe { url, tls: TlsTrust::SystemRoots, metric: "errors".to_owned(), good };
    let said = asked_kind(ProbeKind::HttpMetric(login), LIMIT).await.expect_err("no metrics");
    assert!(said.contains("no page of metrics: line 1"), "{said}");
}

#[tokio::test]
async fn a_unit_that_cannot_be_asked_about_is_a_failure() {
    let said = asked(Probe::Unit { unit: "--force".into() }).await.expect_err("no unit");
    assert!(said.contains("is not the whole name of a unit"), "{said}");
}
