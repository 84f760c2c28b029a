//! Whatever a source serves, in whatever order: floors only rise, and what is offered was signed for this host.

use std::collections::BTreeSet;
use std::time::Duration;

use nixfleet_agent::source::documents::{Connection, Documents, Got, NoAnswer, Wanted};
use nixfleet_agent::source::look::{Found, look};
use nixfleet_trust::trust::Trust;
use proptest::prelude::*;

use crate::fleet::*;
use crate::shelf::{Shelf, looker};

/// One thing that whoever serves the folder does to it.
#[derive(Debug, Clone)]
enum Deed {
    Publish(u64),
    Latest(u64),
    Forge(u64),
    Cut { document: usize, at: usize },
    Flip { document: usize, at: usize },
    Swap { one: usize, other: usize },
    Remove(usize),
    Root(u64),
    Restart,
    Clock(u64),
}

fn deed() -> impl Strategy<Value = Deed> {
    prop_oneof![
        4 => (1u64..9).prop_map(Deed::Publish),
        4 => (0u64..9).prop_map(Deed::Latest),
        1 => (1u64..9).prop_map(Deed::Forge),
        2 => (any::<usize>(), any::<usize>()).prop_map(|(document, at)| Deed::Cut { document, at }),
        2 => (any::<usize>(), any::<usize>()).prop_map(|(document, at)| Deed::Flip { document, at }),
        2 => (any::<usize>(), any::<usize>()).prop_map(|(one, other)| Deed::Swap { one, other }),
        1 => any::<usize>().prop_map(Deed::Remove),
        1 => (2u64..4).prop_map(Deed::Root),
        1 => Just(Deed::Restart),
        2 => (0u64..40).prop_map(|days| Deed::Clock((NOW - 20 * DAY) + days * DAY)),
    ]
}

fn path(shelf: &Shelf, number: usize) -> Option<String> {
    let paths: Vec<_> = shelf.0.keys().collect();
    (!paths.is_empty()).then(|| paths[number % paths.len()].clone())
}

fn do_to(shelf: &mut Shelf, fleet: &Fleet, deed: &Deed) {
    match *deed {
        Deed::Publish(seq) => shelf.publish(fleet, seq),
        Deed::Latest(seq) => shelf.latest(seq),
        Deed::Forge(seq) => {
            let stranger = Key::ed25519(71);
            let mut entries = fleet.entries();
            entries[0]["system"] = "/nix/store/zzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzz-evil".into();
            let forged = signed(RELEASE, &release_over(seq, &entries), &[&stranger, &fleet.stable_keys[0]]);
            shelf.put_release(seq, forged, &entries);
            shelf.latest(seq);
        }
        Deed::Cut { document, at } => {
            let Some(path) = path(shelf, document) else { return };
            let bytes = shelf.0.get_mut(&path).expect("it is there");
            bytes.truncate(at % (bytes.len() + 1));
        }
        Deed::Flip { document, at } => {
            let Some(path) = path(shelf, document) else { return };
            let bytes = shelf.0.get_mut(&path).expect("it is there");
            if !bytes.is_empty() {
                let at = at % bytes.len();
                bytes[at] ^= 1;
            }
        }
        Deed::Swap { one, other } => {
            let (Some(one), Some(other)) = (path(shelf, one), path(shelf, other)) else { return };
            let bytes = (shelf.0[&one].clone(), shelf.0[&other].clone());
            shelf.0.insert(one, bytes.1);
            shelf.0.insert(other, bytes.0);
        }
        Deed::Remove(document) => {
            let Some(path) = path(shelf, document) else { return };
            shelf.remove(&path);
        }
        Deed::Root(version) => {
            let root = with(&fleet.root(), "version", version);
            shelf.put(format!("root/{version}.json"), fleet.sign_root(&root));
        }
        Deed::Restart | Deed::Clock(_) => {}
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn no_order_of_documents_lowers_a_floor_or_offers_what_was_not_signed_for_this_host(
        deeds in prop::collection::vec(deed(), 1..40),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        let fleet = fleet();
        let configured = fleet.sign_root(&fleet.root());
        // The digests of all releases that were ever signed by enough keys; what `Publish` signs is always the same.
        let signed: BTreeSet<String> =
            (1..9).map(|seq| hex_digest(fleet.release(seq).to_string().as_bytes())).collect();
        let (mut shelf, mut trust, mut clock) = (Shelf::default(), fleet.trust(), NOW);
        let (mut settled, looker) = (None, looker(&fleet, 0));
        let system = fleet.entry(0)["system"].as_str().expect("a text").to_owned();
        for deed in &deeds {
            do_to(&mut shelf, &fleet, deed);
            match deed {
                Deed::Clock(ms) => clock = *ms,
                Deed::Restart => {
                    let saved = trust.to_saved().to_bytes();
                    let again = Trust::open(&configured, Some(&saved)).expect("what was saved is sound");
                    prop_assert_eq!(&again, &trust);
                    settled = None;
                }
                _ => {}
            }
            let before = trust.clone();
            let looking = look(&mut shelf, &looker, &mut trust, settled.as_ref(), at(clock));
            let found = runtime.block_on(looking);
            let floors = |trust: &Trust| trust.floor(&stable()).expect("the channel is known").seq;
            prop_assert!(floors(&trust) >= floors(&before));
            prop_assert!(trust.root().version >= before.root().version);
            match found {
                Found::Release(offer, now_settled) => {
                    let terms = &offer.terms;
                    prop_assert!(signed.contains(&terms.release.digest.to_string()));
                    prop_assert_eq!(terms.release.seq, floors(&trust), "what is offered is the floor from now on");
                    prop_assert!(clock < terms.expires_ms.get(), "nothing that has expired is offered");
                    prop_assert_eq!(&terms.system.to_string(), &system);
                    settled = Some(now_settled);
                }
                Found::Refused(refused) => {
                    prop_assert!(!refused.why.is_empty() && !refused.why.contains('\n'));
                    settled = None;
                }
                Found::Nothing(_) | Found::Same => {}
            }
        }
    }
}

#[tokio::test]
async fn a_release_that_is_known_is_looked_at_again_under_a_root_that_a_look_in_vain_brought() {
    let fleet = fleet();
    let (mut shelf, mut trust) = (Shelf::up_to(&fleet, 2), fleet.trust());
    let looker = looker(&fleet, 0);
    let Found::Release(_, settled) = look(&mut shelf, &looker, &mut trust, None, at(NOW)).await else {
        panic!("no offer")
    };
    trust = trust.accept_root(&fleet.sign_root(&with(&fleet.root(), "version", 2)), at(NOW)).expect("a root");
    let found = look(&mut shelf, &looker, &mut trust, Some(&settled), at(NOW)).await;
    let Found::Release(offer, settled) = found else { panic!("not under the root in force: {found:?}") };
    assert_eq!(offer.moved.root.version, trust.root().version);
    let found = look(&mut shelf, &looker, &mut trust, Some(&settled), at(NOW)).await;
    assert!(matches!(found, Found::Same), "{found:?}");
}

/// Serves what is on the shelf but for one document, for which it lets wait.
struct Stuck(Shelf, &'static str);

impl Documents for Stuck {
    async fn get(&mut self, wanted: Wanted<'_>) -> Result<Got, NoAnswer> {
        if wanted.path == self.1 {
            return std::future::pending().await;
        }
        self.0.get(wanted).await
    }
    fn begin(&mut self, _: Connection) {}
    async fn news(&mut self) {
        std::future::pending::<()>().await;
    }
}

#[tokio::test]
async fn a_look_that_is_cut_off_has_not_been_in_vain() {
    let fleet = fleet();
    let (mut shelf, mut trust) = (Shelf::up_to(&fleet, 2), fleet.trust());
    for version in [2, 3, 4] {
        let root = fleet.sign_root(&with(&fleet.root(), "version", version));
        shelf.put(format!("root/{version}.json"), root);
    }
    let mut stuck = Stuck(shelf, "root/4.json");
    let for_whom = looker(&fleet, 0);
    let look = look(&mut stuck, &for_whom, &mut trust, None, at(NOW));
    let cut_off = tokio::time::timeout(Duration::from_millis(200), look).await;
    assert!(cut_off.is_err(), "it waits for root 4");
    assert_eq!(trust.root().version.get(), 3);
}

#[tokio::test]
async fn a_source_that_goes_back_behind_what_a_look_in_vain_accepted_is_refused() {
    let fleet = fleet();
    let (mut shelf, mut trust) = (Shelf::up_to(&fleet, 2), fleet.trust());
    let for_whom = looker(&fleet, 0);
    let Found::Release(_, settled) = look(&mut shelf, &for_whom, &mut trust, None, at(NOW)).await else {
        panic!("no offer")
    };
    // Release 3 was accepted, and then this host's entry did not come.
    let mut newer = Shelf::up_to(&fleet, 3);
    newer.remove("channels/stable/3/hosts/web-0.json");
    let found = look(&mut newer, &for_whom, &mut trust, Some(&settled), at(NOW)).await;
    assert!(matches!(found, Found::Refused(_)), "{found:?}");
    let found = look(&mut shelf, &for_whom, &mut trust, Some(&settled), at(NOW)).await;
    assert!(matches!(found, Found::Refused(_)), "release 2 is behind the floor: {found:?}");
}
