//! Probes that ask a server over TLS, by the running agent of a host: whom they believe, and where they let themselves be sent.
//!
//! The server is `openssl s_server` in a unit of the host, with a certificate that an authority made on the host has signed.

use nixfleet_testbed::{Flavour, Host, System};
use serde_json::{Value, json};

use crate::common::{LIMIT, assert_rests_on, host, hosts_run};
use crate::fleet::{Fleet, Saying};
use crate::followed::{await_state, follow_on};

/// The authority that has signed the server's certificate.
const AUTHORITY: &str = "/etc/fleet/ca.pem";
/// One that has not.
const STRANGER: &str = "/etc/fleet/stranger.pem";
const SERVER: &str = "web-tls.service";
const SITE: &str = "https://127.0.0.1:8443";

/// Two authorities, and a key and certificate for the address, signed by the first.
const MAKE: &str = r#"
set -e
# The systems of the testbed have a program of this name that is none.
openssl=/usr/bin/openssl
cd /etc/fleet
for name in ca stranger; do
    $openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 \
        -subj "/CN=$name" -keyout "$name.key" -out "$name.pem"
done
$openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=web -keyout web.key -out web.csr
printf 'subjectAltName=IP:127.0.0.1\nbasicConstraints=CA:FALSE\n' > web.ext
$openssl x509 -req -in web.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 30 -extfile web.ext -out web.pem
"#;

/// A release with this probe alone, enforced.
fn asked(kind: &Value) -> Saying {
    let probe = json!({
        "name": "secured", "kind": { "http": kind }, "interval_secs": 1, "timeout_secs": 10, "after_secs": 0, "failures": 3,
    });
    Saying { probes: json!([probe]), ..Saying::default() }
}

/// Whoever has the certificate of that authority is believed.
fn believing(authority: &str, path: &str, redirects: &str) -> Value {
    json!({
        "url": format!("{SITE}/{path}"), "body_contains": "all is well", "tls": { "ca-file": authority },
        "redirects": redirects,
    })
}

/// A server that answers with the files of a folder, each of which is a whole answer.
fn serve(host: &Host) {
    let unit = "[Service]\nWorkingDirectory=/srv/site\nExecStart=/usr/bin/openssl s_server -quiet -HTTP -accept \
                127.0.0.1:8443 -cert /etc/fleet/web.pem -key /etc/fleet/web.key\nRestart=always\n";
    let moved = |to: &str| format!("HTTP/1.0 302 Found\r\nLocation: {to}\r\nContent-Length: 0\r\n\r\n");
    for (path, contents) in [
        ("/run/systemd/system/web-tls.service", unit),
        ("/srv/site/health", "HTTP/1.0 200 OK\r\nContent-Length: 12\r\n\r\nall is well\n"),
        ("/srv/site/moved", &moved("/health")),
        ("/srv/site/plain", &moved("http://127.0.0.1:8000/health")),
    ] {
        host.write_file(path, contents).expect("written");
    }
    host.sh("mkdir -p /etc/fleet").expect("it runs").success().expect("made");
    host.run(&["/bin/bash", "-c", MAKE]).expect("it runs").success().expect("made");
    host.run(&["systemctl", "daemon-reload"]).expect("it runs").success().expect("loaded");
    host.run(&["systemctl", "start", SERVER]).expect("it runs").success().expect("started");
    let answers = host.wait_until("the server answers", LIMIT, |host| {
        let asked = ["curl", "-s", "--cacert", AUTHORITY, &format!("{SITE}/health")];
        host.run(&asked).is_ok_and(|output| output.stdout.contains("all is well"))
    });
    assert!(answers.is_ok(), "{}", host.journal(SERVER).unwrap_or_default());
}

/// A release that is asked so goes back, since the probe saw this.
fn goes_back(host: &Host, fleet: &Fleet, seq: u64, kind: &Value, evidence: &str) {
    fleet.publish(host, seq, host.system(System::Good3), &asked(kind));
    let said = await_state(host, "reverted", &format!("stable/{seq}"));
    let failure = &said["failure"]["failure"];
    assert_eq!((&failure["kind"], &failure["probe"]), (&json!("probe-failed"), &json!("secured")), "{said}");
    assert!(failure["evidence"].as_str().is_some_and(|seen| seen.contains(evidence)), "{evidence}: {said}");
    assert_rests_on(host, System::Good);
}

#[test]
fn a_release_is_proven_over_tls_by_the_named_authority_and_follows_a_redirect_only_if_told_to() {
    if !hosts_run() {
        return;
    }
    let host = host(Flavour::Trixie);
    serve(&host);
    let (host, fleet) = follow_on(host);
    fleet.publish(&host, 1, host.system(System::Good), &asked(&believing(AUTHORITY, "health", "refuse")));
    await_state(&host, "converged", "stable/1");

    let unnamed = json!({ "url": format!("{SITE}/health") });
    goes_back(&host, &fleet, 2, &unnamed, "UnknownIssuer");
    goes_back(&host, &fleet, 3, &believing(STRANGER, "health", "refuse"), "UnknownIssuer");
    let elsewhere = format!("status 302 Found sends us to {SITE}/health; ask that address");
    goes_back(&host, &fleet, 4, &believing(AUTHORITY, "moved", "refuse"), &elsewhere);
    goes_back(&host, &fleet, 5, &believing(AUTHORITY, "plain", "follow"), "http://127.0.0.1:8000/health");

    fleet.publish(&host, 6, host.system(System::Good3), &asked(&believing(AUTHORITY, "moved", "follow")));
    await_state(&host, "converged", "stable/6");
    assert_rests_on(&host, System::Good3);
}
