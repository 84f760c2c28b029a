//! The attack "cache key stolen": other contents under the name of a released system, with a signature that every host
//! accepts. What stands against it is the digest of the closure, which the release has signed.

use nixfleet_testbed::{Damage, Flavour, Host, System};

use crate::common::{AGENT, LIMIT, assert_rests_on, fires, host, hosts_run};
use crate::fleet::{Fleet, Saying};
use crate::followed::{await_state, follow_on};

/// What the thief's system makes when it is activated.
const MARK: &str = "/var/log/stolen";

/// A host that follows a fleet whose cache a thief serves, and knows the digest of the system that is to be released.
fn robbed() -> (Host, Fleet) {
    let (host, fleet) = follow_on(host(Flavour::Trixie));
    let target = host.system(System::Good);
    fleet.learn(&host, target);
    host.cache().expect("it has one").damage(target, Damage::OtherContents).expect("damaged");
    // What Nix remembers of the cache as it was.
    host.sh("rm -rf /root/.cache/nix").expect("it runs");
    (host, fleet)
}

/// The release is refused for its digest, in words that name the attack, and nothing of it has run.
fn assert_is_refused(host: &Host) {
    let said = await_state(host, "failed", "stable/1");
    let failure = &said["failure"];
    assert_eq!(
        (&failure["class"], &failure["failure"]["kind"]),
        (&"trust".into(), &"closure-mismatch".into())
    );
    let shown = host.run(&[AGENT, "status"]).expect("it runs").stdout;
    assert!(shown.contains("a cache's signing key was stolen"), "{shown}");
    assert_eq!(fires(host, host.system(System::Good)), 0);
    assert!(!host.exists(MARK));
    assert_rests_on(host, System::Base);
}

#[test]
fn contents_that_a_thief_of_the_caches_key_signed_are_refused_for_their_digest_and_nothing_changes() {
    if !hosts_run() {
        return;
    }
    let (host, fleet) = robbed();
    let target = host.system(System::Good);
    assert!(!host.exists(target), "it is still to be fetched");
    fleet.publish(&host, 1, target, &Saying::default());
    assert_is_refused(&host);

    // The true contents are fetched again when the others are gone.
    host.cache().expect("it has one").repair(target).expect("repaired");
    let repaired = host.run_for(LIMIT, &["nix-store", "--repair-path", target]).expect("it runs");
    assert_eq!(repaired.code, 0, "{repaired}");
    let again = host.run(&[AGENT, "retry", "--by", "the test"]).expect("it runs");
    assert_eq!(again.code, 0, "{again}");
    await_state(&host, "converged", "stable/1");
    assert_rests_on(&host, System::Good);
    assert!(!host.exists(MARK));
}

#[test]
fn contents_of_a_thief_that_are_in_the_store_already_are_refused_as_well() {
    if !hosts_run() {
        return;
    }
    let (host, fleet) = robbed();
    let target = host.system(System::Good);
    // Somebody fetched it before the release, and Nix had nothing against its signature.
    host.fetch(target).expect("Nix takes it");
    let contents = host.sh(&format!("grep -c {MARK} {target}/activate")).expect("it runs");
    assert_eq!(contents.text(), "1", "these are the thief's: {contents}");
    fleet.publish(&host, 1, target, &Saying::default());
    assert_is_refused(&host);
}
