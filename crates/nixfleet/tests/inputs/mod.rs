//! What is done with the bytes of a stranger: the fuzz target calls it with noise, and a test with the corpus.

use nixfleet::fleet;
use nixfleet::fleet::faults::{placed, render};

/// A description of a fleet. Beside "no panic": there is a fleet or at least one fault, each fault stands in the text, and
/// what is read is consistent in itself.
pub(crate) fn fleet_json(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    match fleet::read(text) {
        Ok(fleet) => {
            for (name, host) in &fleet.hosts {
                assert!(fleet.channels.contains_key(&host.channel), "{name} follows a channel that is there");
                assert!((1..=2).contains(&host.keys.len()), "{name} has one key or two");
            }
            for (name, channel) in &fleet.channels {
                let policy = &channel.policy;
                assert_eq!(policy.policy.faults(), [], "the policy of {name} would be signed");
                assert_eq!(policy.choices.len(), policy.policy.waves.len());
            }
        }
        Err(faults) => {
            assert!(!faults.is_empty(), "a refusal has a reason");
            let lines = text.split('\n').count();
            assert!(placed(text, &faults).iter().all(|fault| fault.line <= lines));
            assert!(!render("fleet.json", text, &faults).is_empty());
        }
    }
}
