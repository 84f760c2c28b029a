//! Web servers that behave in every bad way: each ends in a clear word within its limit, and nothing is believed.

use std::time::{Duration, Instant};

use nixfleet_agent::source::documents::{Connection, Documents, Got, NoAnswer, Version, Wanted};
use nixfleet_agent::source::look::{Found, look};
use nixfleet_agent::source::place::Place;
use nixfleet_agent::source::web::tls::ServerTrust;
use nixfleet_agent::source::web::{Limits, Proxies, Speaking, Web};
use nixfleet_core::host::event::Refusal;
use nixfleet_trust::attack::Attack;

use crate::fleet::*;
use crate::server::{Manners, Server};
use crate::shelf::{Shelf, looker};

/// What a busy machine does not come near where a server answers.
const PATIENT: Limits = Limits {
    connect: Duration::from_secs(20),
    silent: Duration::from_secs(20),
    whole: Duration::from_secs(40),
};
/// For servers that do not.
const IMPATIENT: Limits = Limits {
    connect: Duration::from_millis(500),
    silent: Duration::from_millis(400),
    whole: Duration::from_millis(900),
};
/// Far more than any of these, and far less than a test may take.
const SOON: Duration = Duration::from_mins(1);

pub(crate) fn web(url: &str, trust: ServerTrust) -> Web {
    web_within(url, trust, PATIENT)
}

fn web_within(url: &str, trust: ServerTrust, limits: Limits) -> Web {
    match url.parse().expect(url) {
        Place::Web(address) => {
            Web::new(address, Speaking { trust, identity: None, proxies: Proxies::None }, limits)
        }
        Place::Folder(_) | Place::ControlPlane(_) => panic!("{url} is no web server"),
    }
}

fn latest() -> Wanted<'static> {
    Wanted { path: "channels/stable/latest", bytes_max: 21, known: None }
}

async fn asked(server: &Server) -> Result<Got, NoAnswer> {
    asked_within(server, PATIENT).await
}

async fn asked_within(server: &Server, limits: Limits) -> Result<Got, NoAnswer> {
    let began = Instant::now();
    let got = web_within(&server.url(), ServerTrust::Host, limits).get(latest()).await;
    assert!(began.elapsed() < SOON, "it has a limit");
    got
}

async fn found(server: &Server) -> Found {
    let fleet = fleet();
    let mut web = web(&server.url(), ServerTrust::Host);
    look(&mut web, &looker(&fleet, 0), &mut fleet.trust(), None, at(NOW)).await
}

#[tokio::test]
async fn a_good_server_is_followed_over_one_connection() {
    let server = Server::start(Shelf::up_to(&fleet(), 2), Manners::Good).await;
    let found = found(&server).await;
    assert!(matches!(found, Found::Release(..)), "{found:?}");
    let seen = server.seen();
    let targets: Vec<_> = seen.iter().map(|seen| seen.target.as_str()).collect();
    assert_eq!(
        targets,
        [
            "/channels/stable/latest",
            "/root/2.json",
            "/channels/stable/2/release.json",
            "/channels/stable/2/hosts/web-0.json",
        ]
    );
    assert!(seen.iter().all(|seen| seen.connection == 0), "{seen:?}");
    assert!(seen.iter().all(|seen| seen.headers["cache-control"] == "no-cache"));
    assert!(seen[0].headers["user-agent"].starts_with("nixfleet-agent/"));
}

#[tokio::test]
async fn a_login_page_is_no_answer() {
    let server = Server::start(Shelf::up_to(&fleet(), 1), Manners::LoginPage).await;
    let said = asked(&server).await.expect_err("a page").to_string();
    assert!(said.contains("login page"), "{said}");
    assert!(matches!(found(&server).await, Found::Nothing(NoAnswer::WebPage { .. })));
}

#[tokio::test]
async fn a_page_with_a_good_status_in_place_of_a_root_is_told_and_not_taken_for_one() {
    let server = Server::start(Shelf::up_to(&fleet(), 1), Manners::PageForMissing).await;
    assert!(matches!(found(&server).await, Found::Nothing(NoAnswer::WebPage { .. })));
}

#[tokio::test]
async fn a_store_that_forbids_what_it_does_not_have_is_followed() {
    let server = Server::start(Shelf::up_to(&fleet(), 1), Manners::ForbidsMissing).await;
    let found = found(&server).await;
    assert!(matches!(found, Found::Release(..)), "{found:?}");
}

#[tokio::test]
async fn an_endless_answer_is_cut_one_byte_after_its_limit() {
    let server = Server::start(Shelf::default(), Manners::Endless).await;
    let Ok(Got::Bytes { bytes, .. }) = asked(&server).await else { panic!("it answers") };
    assert_eq!(bytes.len(), 22);
    assert!(matches!(found(&server).await, Found::Nothing(NoAnswer::NotLatest { .. })));
}

#[tokio::test]
async fn an_endless_release_is_refused_as_the_attack_that_it_is() {
    let mut shelf = Shelf::up_to(&fleet(), 1);
    shelf.put("channels/stable/1/release.json".into(), vec![b'['; 3 << 20]);
    let server = Server::start(shelf, Manners::Good).await;
    let Found::Refused(refused) = found(&server).await else { panic!("it must be refused") };
    assert_eq!((refused.kind, refused.attack), (Refusal::Trust, Some(Attack::EndlessData)));
}

#[tokio::test]
async fn slow_and_silent_servers_end_by_a_limit() {
    for manners in [Manners::Dripping, Manners::Silent] {
        let server = Server::start(Shelf::default(), manners.clone()).await;
        let said = asked_within(&server, IMPATIENT).await.expect_err("too slow");
        assert!(matches!(said, NoAnswer::TooSlow { .. }), "{manners:?}: {said:?}");
    }
}

#[tokio::test]
async fn servers_that_break_off_or_talk_nonsense_are_no_answer_and_the_text_names_the_document() {
    for manners in [Manners::CutOff, Manners::HangsUp, Manners::Noise] {
        let server = Server::start(Shelf::default(), manners.clone()).await;
        let said = asked(&server).await.expect_err("broken");
        assert!(matches!(said, NoAnswer::Unreachable { .. }), "{manners:?}: {said:?}");
        let (said, url) = (said.to_string(), format!("{}channels/stable/latest", server.url()));
        assert!(said.starts_with(&url), "{said}");
        assert_eq!(said.matches(&url).count(), 1, "named once: {said}");
    }
}

#[tokio::test]
async fn nobody_listening_is_said_in_plain_words() {
    let server = Server::start(Shelf::default(), Manners::Good).await;
    let url = server.url();
    drop(server);
    let mut web = web(&url, ServerTrust::Host);
    let began = Instant::now();
    loop {
        let said = web.get(latest()).await.expect_err("nobody").to_string();
        if said.contains("refused") {
            return;
        }
        // The listener goes with its task, which ends when it is next polled.
        assert!(began.elapsed() < SOON, "{said}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn statuses_that_are_no_answer_are_named() {
    for status in [301_u16, 401, 407, 429, 500, 502, 503, 206] {
        let server = Server::start(Shelf::default(), Manners::Status(status)).await;
        let said = asked(&server).await.expect_err("no document");
        assert!(matches!(said, NoAnswer::Status { status: s, .. } if s == status), "{said:?}");
    }
    for status in [404, 410] {
        let server = Server::start(Shelf::default(), Manners::Status(status)).await;
        assert_eq!(asked(&server).await, Ok(Got::Missing));
        let found = found(&server).await;
        assert!(matches!(found, Found::Nothing(NoAnswer::NothingPublished { .. })), "{found:?}");
    }
}

#[tokio::test]
async fn a_redirect_leads_to_the_same_server_or_nowhere() {
    let other = Server::start(Shelf::up_to(&fleet(), 1), Manners::Good).await;
    let to = other.url().trim_end_matches('/').to_owned();
    let server = Server::start(Shelf::default(), Manners::Redirects(to)).await;
    let said = asked(&server).await.expect_err("another server").to_string();
    assert!(said.contains("another server"), "{said}");
    assert_eq!(other.seen().len(), 0, "the other server was not even asked");
    let server = Server::start(Shelf::default(), Manners::RedirectsInside).await;
    assert!(matches!(asked(&server).await, Ok(Got::Bytes { bytes, .. }) if bytes == b"1\n"));
    let server = Server::start(Shelf::default(), Manners::Redirects(String::new())).await;
    let said = asked(&server).await.expect_err("in circles").to_string();
    assert!(said.contains("too many redirects"), "{said}");
}

#[tokio::test]
async fn what_is_known_is_asked_for_by_its_tag_and_not_sent_again() {
    let fleet = fleet();
    let server = Server::start(Shelf::up_to(&fleet, 1), Manners::Tagging).await;
    let (mut web, looker) = (web(&server.url(), ServerTrust::Host), looker(&fleet, 0));
    let mut trust = fleet.trust();
    let first = look(&mut web, &looker, &mut trust, None, at(NOW)).await;
    let Found::Release(_, settled) = first else { panic!("{first:?}") };
    server.seen();
    let second = look(&mut web, &looker, &mut trust, Some(&settled), at(NOW)).await;
    assert!(matches!(second, Found::Same));
    let seen = server.seen();
    let statuses: Vec<_> = seen.iter().map(|seen| (seen.target.as_str(), seen.status)).collect();
    assert_eq!(statuses, [("/channels/stable/latest", 304), ("/root/2.json", 404)]);

    // A newer number has another tag, and is followed.
    server.change(|shelf| shelf.publish(&fleet, 2));
    let third = look(&mut web, &looker, &mut trust, Some(&settled), at(NOW)).await;
    assert!(matches!(third, Found::Release(_, settled) if settled.seq().get() == 2));

    // A server that says "the same" to whoever knows nothing has said nothing.
    server.behave(Manners::AlwaysTheSame);
    assert!(asked(&server).await.is_err());
    let fresh = look(&mut web, &looker, &mut trust, None, at(NOW)).await;
    assert!(matches!(fresh, Found::Nothing(_)), "{fresh:?}");
}

#[tokio::test]
async fn the_date_of_a_document_is_sent_back_if_it_has_no_tag() {
    let server = Server::start(Shelf::up_to(&fleet(), 1), Manners::Good).await;
    let modified = "Wed, 25 Nov 2026 12:00:00 GMT".to_owned();
    let known = Version { etag: None, modified: Some(modified.clone()) };
    let got = web(&server.url(), ServerTrust::Host).get(Wanted { known: Some(&known), ..latest() }).await;
    assert!(matches!(got, Ok(Got::Bytes { .. })));
    let seen = server.seen();
    assert_eq!(seen[0].headers.get("if-modified-since"), Some(&modified));
    assert_eq!(seen[0].headers.get("if-none-match"), None);
}

#[tokio::test]
async fn a_fresh_connection_is_a_new_one() {
    let server = Server::start(Shelf::up_to(&fleet(), 1), Manners::Good).await;
    let mut web = web(&server.url(), ServerTrust::Host);
    for connection in [Connection::Any, Connection::Any, Connection::Fresh] {
        web.begin(connection);
        web.get(latest()).await.expect("an answer");
    }
    let connections: Vec<_> = server.seen().iter().map(|seen| seen.connection).collect();
    assert_eq!(connections, [0, 0, 1]);
}
