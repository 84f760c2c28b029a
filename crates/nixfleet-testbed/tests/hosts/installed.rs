//! The control plane as it is shipped: its unit, installed by the commands of the README, word for word.

use std::path::Path;

use nixfleet_testbed::{Flavour, Host};

use crate::common::{LIMIT, hosts_run};
use crate::controlled::program;
use crate::fleet::{Fleet, ROOT_FILE};

const README: &str = include_str!("../../../../README.md");
const SHIPPED_UNIT: &str = include_str!("../../../../dist/nixfleet-control-plane.service");
const UNIT: &str = "nixfleet-control-plane.service";
/// Where `README.md` is followed.
const HERE: &str = "/root/control-plane";
/// Root's path on a machine that is no NixOS.
const PATH: &str = "export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The code block of the README that begins so.
fn block(beginning: &str) -> &'static str {
    let mut blocks = README.split("\n```\n").skip(1).step_by(2);
    blocks.find(|block| block.starts_with(beginning)).expect("the README says it")
}

/// A machine that is no NixOS, with the program in the place where the README puts it.
fn machine() -> Host {
    let program = program("NIXFLEET_CONTROL_PLANE_BIN");
    let inside = Path::new("/usr/local/bin/nixfleet-control-plane");
    let host = Host::builder(Flavour::Trixie).bind(&program, inside).boot().expect("a host");
    // There /etc/systemd/system is a folder, and no link to what a system brought.
    let folder = "cp -aL /etc/systemd/system /etc/systemd/own && rm /etc/systemd/system \
                  && mv /etc/systemd/own /etc/systemd/system";
    assert_eq!(host.sh(folder).expect("it runs").code, 0);
    Fleet::new().introduce(&host);
    host.write_file(&format!("{HERE}/dist/{UNIT}"), SHIPPED_UNIT).expect("written");
    host.sh(&format!("mv {ROOT_FILE} {HERE}/root.json")).expect("it runs");
    host
}

/// What somebody is answered who pins the server's key.
fn asked(host: &Host, pin: &str, path: &str, token: &str) -> String {
    let (address, token) =
        (format!("https://127.0.0.1:8443{path}"), format!("Authorization: Bearer {token}"));
    let curl = ["curl", "-sS", "-k", "-m", "50", "--pinnedpubkey", pin, "-H", &token, &address];
    host.run(&curl).expect("it runs").text().to_owned()
}

#[test]
fn a_control_plane_that_is_installed_as_the_readme_says_is_ready_and_takes_a_renewed_certificate() {
    if !hosts_run() {
        return;
    }
    let host = machine();
    let installed =
        host.sh(&format!("set -e; {PATH}; cd {HERE}\n{}", block("useradd --system"))).expect("it runs");
    assert_eq!(installed.code, 0, "{installed}\n{}", host.journal(UNIT).unwrap_or_default());
    let line = |beginning| installed.stdout.lines().find(|line| line.starts_with(beginning));
    let (pin, token) = (line("sha256//").expect("its pin"), line("nixfleet_").expect("a token"));
    let ready = host.wait_until("it is ready", LIMIT, |host| asked(host, pin, "/readyz", "") == "ok");
    assert!(ready.is_ok(), "{}", host.journal(UNIT).unwrap_or_default());
    assert!(asked(&host, pin, "/v1/fleet", token).contains("newest_event"), "the token is one");
    let runs_as =
        host.sh(&format!("ps -o user:32= -p $(systemctl show -P MainPID {UNIT})")).expect("it runs");
    assert_eq!(runs_as.text(), "nixfleet-control-plane");

    let process = host.run(&["systemctl", "show", "-P", "MainPID", UNIT]).expect("it runs").text().to_owned();
    let renew = "cd /var/lib/nixfleet-control-plane && rm server.pem server.key \
                 && runuser -u nixfleet-control-plane -- nixfleet-control-plane certificate fleet.example.org";
    let renewed = host.sh(&format!("{PATH}; {renew}")).expect("it runs");
    assert_eq!(renewed.code, 0, "{renewed}");
    let pin = renewed.text();
    let ready =
        host.wait_until("it shows the new key", LIMIT, |host| asked(host, pin, "/readyz", "") == "ok");
    assert!(ready.is_ok(), "{}", host.journal(UNIT).unwrap_or_default());
    let same = host.run(&["systemctl", "show", "-P", "MainPID", UNIT]).expect("it runs");
    assert_eq!(same.text(), process, "nobody restarted it");
}
