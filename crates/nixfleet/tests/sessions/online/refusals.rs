//! What a person is told when it does not work: whose fault it is, by exit code, and what to do.

use std::path::Path;

use nixfleet_sys::exec::Cmd;
use nixfleet_sys::fs;

use super::agents::{fleet_of, pushed};
use super::control_plane::{ControlPlane, is_built};
use super::stand_in::{Answer, StandIn};
use crate::support::{NIXFLEET, Said, said};

/// Every verb that asks, in a form that means something.
const VERBS: [&[&str]; 17] = [
    &["status"],
    &["plan"],
    &["rollout", "list"],
    &["hosts"],
    &["hosts", "--channel", "stable"],
    &["hosts", "--strangers"],
    &["host", "web-1"],
    &["why", "web-1"],
    &["events"],
    &["rollout", "show", "stable"],
    &["rollout", "pause", "stable", "--why", "x", "--yes"],
    &["rollout", "approve", "stable", "--why", "x", "--yes"],
    &["rollout", "skip", "web-1", "--why", "x", "--yes"],
    &["hold", "web-1", "--why", "x", "--yes"],
    &["unhold", "web-1", "--why", "x", "--yes"],
    &["retry", "web-1", "--why", "x", "--yes"],
    &["status", "--watch"],
];

fn refused(said: &Said, code: i32, words: &[&str]) {
    assert_eq!(said.code, code, "{said:?}");
    assert_eq!(said.out, "", "what is refused prints no data");
    for word in words {
        assert!(said.err.contains(word), "{word}: {said:?}");
    }
}

#[tokio::test]
async fn every_verb_refuses_a_token_that_is_not_known() {
    if !is_built() {
        return;
    }
    let (session, _, server) = pushed(&["web-1"]).await;
    for words in VERBS {
        let wrong = said(server.verb(&session, "nixfleet_wrong", words).run().await);
        refused(
            &wrong,
            1,
            &["error: the token is not known here", "hint: `nixfleet-control-plane token add"],
        );
    }
    let words = ["release", "push", "--channel", "stable", "--yes"];
    let wrong = said(server.verb(&session, "nixfleet_wrong", &words).run().await);
    refused(&wrong, 1, &["the token is not known here"]);
}

#[tokio::test]
async fn a_viewer_may_look_and_not_act() {
    if !is_built() {
        return;
    }
    let (session, _, server) = pushed(&["web-1"]).await;
    for words in [
        &["status"][..],
        &["plan"],
        &["rollout", "list"],
        &["hosts"],
        &["host", "web-1"],
        &["why", "web-1"],
        &["events"],
    ] {
        assert_eq!(server.view(&session, words).await.code, 0, "{words:?}");
    }
    for words in [
        &["hold", "web-1", "--why", "x", "--yes"][..],
        &["unhold", "web-1", "--why", "x", "--yes"],
        &["retry", "web-1", "--why", "x", "--yes"],
        &["rollout", "skip", "web-1", "--why", "x", "--yes"],
        &["release", "push", "--channel", "stable", "--yes"],
    ] {
        let said = server.view(&session, words).await;
        refused(
            &said,
            1,
            &["the token `vic` may look and not act", "hint: acting needs the token of an operator"],
        );
    }
}

#[tokio::test]
async fn an_unknown_host_or_channel_is_refused_with_the_one_that_may_be_meant() {
    if !is_built() {
        return;
    }
    let (session, _, server) = pushed(&["web-1", "db-primary"]).await;
    for (words, wanted) in [
        (&["host", "web_1"][..], "did you mean `web-1`?"),
        (&["why", "db-primry"], "did you mean `db-primary`?"),
        (&["hold", "db-primari", "--why", "x", "--yes"], "did you mean `db-primary`?"),
        (&["retry", "nothing-like-it", "--why", "x", "--yes"], "`nixfleet hosts` lists them"),
        (&["host", "Not/A Name"], "`nixfleet hosts` lists them"),
        (&["events", "--host", "web-11"], "did you mean `web-1`?"),
        (&["hosts", "--channel", "stabel"], "did you mean `stable`?"),
        (&["rollout", "show", "edge"], "there are releases of stable"),
        (&["rollout", "pause", "stabel", "--why", "x", "--yes"], "did you mean `stable`?"),
    ] {
        let said = server.operate(&session, words).await;
        refused(&said, 1, &[wanted]);
    }
    for (words, wanted) in
        [(&["hosts", "--state", "convergd"][..], "did you mean `converged`?"), (&["hots"], "'hosts'")]
    {
        let said = server.operate(&session, words).await;
        refused(&said, 2, &[wanted]);
    }
}

#[tokio::test]
async fn a_server_that_is_down_is_unreachable_for_every_verb() {
    if !is_built() {
        return;
    }
    let (session, _, mut server) = pushed(&["web-1"]).await;
    server.kill().await;
    for words in VERBS {
        let said = server.operate(&session, words).await;
        refused(
            &said,
            3,
            &["error: https://localhost:", "cannot be reached", "hint: is `nixfleet-control-plane run`"],
        );
    }
    let said = server.operate(&session, &["release", "push", "--channel", "stable", "--yes"]).await;
    refused(&said, 3, &["cannot be reached"]);
}

#[tokio::test]
async fn a_server_that_does_not_answer_in_time_is_given_up() {
    let server = StandIn::start("localhost", |_| Answer::Nothing).await;
    let said = server.run(&["hosts", "--timeout", "1s"]).await;
    refused(&said, 3, &["did not answer within 1s", "hint: `--timeout 5m` gives it longer"]);
}

#[tokio::test]
async fn what_is_not_the_answer_of_a_control_plane_is_told_from_an_empty_fleet() {
    let page =
        |_: &str| Answer::Says("200 OK", "text/html", "<html>\n<b>Log in</b> \u{1b}[31m</html>".to_owned());
    let server = StandIn::start("localhost", page).await;
    let said = server.run(&["hosts"]).await;
    refused(
        &said,
        3,
        &["answered 200 OK", "text/html `<html> <b>Log in</b> [31m</html>`", "hint: is this the address"],
    );

    let gateway = |_: &str| Answer::Says("502 Bad Gateway", "text/plain", String::new());
    let server = StandIn::start("localhost", gateway).await;
    refused(&server.run(&["status"]).await, 3, &["answered 502 Bad Gateway", "nothing (text/plain)"]);

    let other = |_: &str| Answer::Says("200 OK", "application/json", r#"{"items": 7}"#.to_owned());
    let server = StandIn::start("localhost", other).await;
    refused(&server.run(&["hosts"]).await, 3, &["of this version"]);

    let away = |_: &str| {
        Answer::Says("308 Permanent Redirect\r\nlocation: https://evil.example/", "text/plain", String::new())
    };
    let server = StandIn::start("localhost", away).await;
    refused(&server.run(&["hosts"]).await, 3, &["it redirects to https://evil.example/"]);

    let server = StandIn::start("localhost", |_| Answer::BreaksOff).await;
    refused(&server.run(&["hosts"]).await, 3, &["cannot be reached"]);
}

#[tokio::test]
async fn a_server_by_another_name_or_key_is_refused_and_a_pinned_one_may_be_called_anything() {
    let empty =
        |_: &str| Answer::Says("200 OK", "application/json", r#"{"items": [], "next": null}"#.to_owned());
    let server = StandIn::start("fleet.example", empty).await;
    refused(&server.run(&["hosts"]).await, 3, &["certificate", "hint: a server is known by its certificate"]);

    let pinned = |pin: &str| {
        let url = format!("https://127.0.0.1:{}", server.port);
        Cmd::new(NIXFLEET).args(["hosts", "--server", &url, "--pin", pin]).env("NIXFLEET_TOKEN", "t")
    };
    let good = said(pinned(&server.pin).run().await);
    assert_eq!((good.code, good.out.starts_with("HOST")), (0, true), "{good:?}");
    let other = "sha256//47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=";
    refused(&said(pinned(other).run().await), 3, &["the server's key is sha256//", "not a pinned one"]);
    refused(&said(pinned("sha256//x").run().await), 2, &["`sha256//x` is not a pin"]);
    let unknown = Cmd::new(NIXFLEET)
        .args(["hosts", "--server", &format!("https://localhost:{}", server.port)])
        .env("NIXFLEET_TOKEN", "t");
    refused(&said(unknown.run().await), 3, &["certificate"]);
}

#[tokio::test]
async fn what_is_missing_is_said_with_where_it_can_be_put() {
    let home = tempfile::tempdir().expect("a folder");
    let at_home = |words: &[&str]| Cmd::new(NIXFLEET).args(words).env("HOME", home.path());
    let path = home.path().join(".config/nixfleet").display().to_string();
    let said1 = said(at_home(&["hosts"]).run().await);
    refused(&said1, 2, &["it is not said where the control plane is", "NIXFLEET_SERVER", &path, "mode 0600"]);
    let said2 = said(at_home(&["hosts", "--server", "https://localhost:1"]).run().await);
    refused(&said2, 2, &["there is no token for https://localhost:1/", "--token-file", &path]);
    let plain = said(at_home(&["hosts", "--server", "http://localhost:1"]).run().await);
    refused(&plain, 2, &["is not encrypted"]);
}

#[tokio::test]
async fn a_file_of_ones_own_is_enough_if_nobody_else_can_read_it() {
    if !is_built() {
        return;
    }
    let (session, _) = fleet_of(&["web-1"]);
    let server = ControlPlane::start(&session).await;
    let config = Path::new(&session.beside("home")).join(".config/nixfleet");
    fs::make_dir(config.parent().expect("a folder")).expect("made");
    let text = format!(
        "server = \"{}\"\ntoken = \"{}\"\nca = \"{}\"\n",
        server.url,
        server.operator,
        server.path("ca.pem")
    );
    fs::write_atomic_mode(&config, text.as_bytes(), 0o644).expect("written");
    let told = said(session.verb(&["status"]).run().await);
    refused(&told, 1, &["has mode 0644", "hint: `chmod 600 "]);
    fs::write_atomic(&config, text.as_bytes()).expect("written");
    let said = said(session.verb(&["status"]).run().await);
    assert_eq!((said.code, said.out.as_str()), (0, "no release was pushed yet\n"), "{said:?}");
}

#[tokio::test]
async fn nobody_is_asked_without_a_terminal_and_nothing_is_done() {
    if !is_built() {
        return;
    }
    let (session, _, server) = pushed(&["web-1"]).await;
    let said = server.operate(&session, &["hold", "web-1", "--why", "exams"]).await;
    refused(
        &said,
        1,
        &["web-1 (stable, never reported) is asked to stay where it is", "nobody can be asked"],
    );
    let events = server.done(&session, &["events", "-o", "json"]).await;
    assert!(!events.contains("exams"), "{events}");
}
