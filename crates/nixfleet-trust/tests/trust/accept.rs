//! The way that everything is good.

use nixfleet_trust::check::entry::{entry, own_entry};
use nixfleet_trust::check::release::Succession;
use nixfleet_trust::trust::Trust;

use crate::support::*;

#[test]
fn a_host_takes_a_release_and_its_own_entry() {
    let fleet = fleet();
    let trust = fleet.trust();
    let bytes = fleet.sign(&fleet.release(1));
    let accepted = trust.accept_release(&stable(), &bytes, at(NOW)).expect("two of three signed");
    assert_eq!(accepted.release.seq, seq(1));
    assert_eq!(accepted.succession, Succession::AfterGap);
    assert_eq!(accepted.release.id().to_string(), "stable/1");

    let entries = fleet.entries();
    for number in 0..entries.len() {
        let mine = own_entry(&accepted.release, &proven(&entries, number), &fleet.me(number))
            .expect("it is this host's");
        assert_eq!(mine.entry.host.as_str(), format!("web-{number}"));
        assert!(mine.entry.system.as_str().ends_with(&format!("web-{number}-25.11")));
        mine.check_closure(&hex_digest(&[u8::try_from(number).expect("few")]).parse().expect("a digest"))
            .expect("the contents are right");
        entry(&accepted.release, &proven(&entries, number)).expect("an auditor sees it too");
    }

    let again = Trust::open(&fleet.sign_root(&fleet.root()), Some(&accepted.trust.to_saved().to_bytes()))
        .expect("what was saved comes back");
    assert_eq!(again, accepted.trust);
    let same = again.accept_release(&stable(), &bytes, at(NOW)).expect("the same once more");
    assert_eq!(same.succession, Succession::Same);
    assert_eq!(same.trust, again);
}
