//! What goes on for as long as somebody looks.

use std::path::Path;
use std::time::Duration;

use nixfleet_sys::exec::Cmd;

use super::agents::pushed;
use super::control_plane::{ControlPlane, SOON, is_built};
use crate::support::Session;

/// A verb whose output goes to a file while it runs, by the shell of the test's machine.
struct Following {
    file: String,
}

impl Following {
    fn start(server: &ControlPlane, session: &Session, words: &[&str]) -> Self {
        let file = session.beside("followed");
        let verb = server.verb(session, &server.viewer, words);
        let line = format!("exec {} >{file} 2>&1", verb.line());
        let url = server.url.clone();
        let (token, ca) = (server.viewer.clone(), server.path("ca.pem"));
        let cmd = Cmd::new("/bin/sh")
            .args(["-c", &line])
            .env("NIXFLEET_SERVER", url)
            .env("NIXFLEET_TOKEN", token)
            .env("NIXFLEET_CA", ca)
            .deadline(Duration::from_mins(5));
        // It ends with the test: whoever drops what waits for it ends it.
        tokio::spawn(async move { drop(cmd.run().await) });
        Self { file }
    }

    fn said(&self) -> String {
        let bytes = nixfleet_sys::fs::read_bounded(Path::new(&self.file), 1 << 20);
        String::from_utf8(bytes.unwrap_or_default()).expect("text")
    }

    /// Waits until all of `words` were said.
    async fn until(&self, words: &[&str]) -> String {
        let read = async {
            while !words.iter().all(|word| self.said().contains(word)) {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        let came = tokio::time::timeout(SOON, read).await;
        assert!(came.is_ok(), "{words:?} did not come: {}", self.said());
        self.said()
    }
}

#[tokio::test]
async fn events_are_followed_and_taken_up_again_after_the_server_was_away() {
    if !is_built() {
        return;
    }
    let (session, mut agents, mut server) = pushed(&["web-1"]).await;
    let following = Following::start(&server, &session, &["events", "--follow"]);
    following.until(&["release stable/1"]).await;
    agents[0].started();
    agents[0].report(&server).await;
    following.until(&["agent 0.1.0 started"]).await;
    server.kill().await;
    following.until(&["trying again"]).await;
    server.again().await;
    agents[0].staged(&session, 1);
    agents[0].report(&server).await;
    let text = following.until(&["it is there again", "fetched and checked release stable/1"]).await;
    assert_eq!(text.matches("agent 0.1.0 started").count(), 1, "nothing is told twice: {text}");
}

#[tokio::test]
async fn a_watch_without_a_terminal_is_a_line_for_each_change() {
    if !is_built() {
        return;
    }
    let (session, mut agents, server) = pushed(&["web-1", "web-2"]).await;
    let following = Following::start(&server, &session, &["status", "--watch"]);
    following.until(&["stable"]).await;
    agents[0].started();
    agents[0].staged(&session, 1);
    agents[0].report(&server).await;
    let text = following.until(&["stable/1  wave 1 of 2, 0 of 2 done, 1 moving"]).await;
    assert!(!text.contains('\u{1b}'), "{text}");
}
