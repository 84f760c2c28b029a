//! Whatever a source serves, in whatever order: floors only rise, and what is offered was signed for this host.

use std::collections::BTreeSet;

use nixfleet_agent::source::look::{Found, Looked, look};
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
            let looking = look(&mut shelf, &looker, &trust, settled.as_ref(), at(clock));
            let Looked { trust: after, found } = runtime.block_on(looking);
            trust = after;
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
