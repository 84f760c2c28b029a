//! When a transient failure is tried again: exponential back-off, spread over the fleet without randomness.

use crate::model::names::HostName;

/// The pause after the first failure, in milliseconds: most outages of a cache are a restart, which takes seconds.
pub const FIRST_MS: u64 = 30_000;
/// The longest pause, in milliseconds: a host comes back within an hour of its cache.
pub const LONGEST_MS: u64 = 3_600_000;

/// A number of the host's own, by which its pauses differ from other hosts': FNV-1a over its name.
pub fn seed_of(host: &HostName) -> u64 {
    let mix = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    host.as_str().as_bytes().iter().fold(0xcbf2_9ce4_8422_2325, mix)
}

/// The pause after the `attempt`-th failure in a row (from 1), in milliseconds: doubled each time up to
/// [`LONGEST_MS`], less up to a quarter of it, by `seed`.
pub fn pause_ms(attempt: u32, seed: u64) -> u64 {
    let doublings = attempt.saturating_sub(1).min(16);
    let full = FIRST_MS.saturating_mul(1 << doublings).min(LONGEST_MS);
    full - scramble(seed.wrapping_add(u64::from(attempt))) % (full / 4 + 1)
}

/// `SplitMix64`'s output function: neighbouring inputs give unrelated outputs.
fn scramble(input: u64) -> u64 {
    let mut z = input.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_pauses_grow_from_half_a_minute_to_an_hour_and_no_further() {
        let longest = [30, 60, 120, 240, 480, 960, 1_920, 3_600, 3_600, 3_600].map(|secs: u64| secs * 1_000);
        for (attempt, longest) in (1..).zip(longest) {
            let got = pause_ms(attempt, 7);
            assert!(got <= longest && got >= longest * 3 / 4, "attempt {attempt}: {got}");
        }
        assert!(pause_ms(u32::MAX, u64::MAX) <= LONGEST_MS);
    }

    #[test]
    fn a_thousand_hosts_that_failed_together_do_not_come_back_together() {
        let hosts = (0..1_000).map(|n| format!("shop-{n}").parse::<HostName>().expect("a name"));
        let mut pauses: Vec<u64> = hosts.map(|host| pause_ms(4, seed_of(&host))).collect();
        pauses.sort_unstable();
        // 240 s less up to 60 s: in no second of the minute may more than a few of them come.
        let crowd = |second: u64| pauses.iter().filter(|ms| **ms / 1_000 == second).count();
        let fullest = (180..=240).map(crowd).max().expect("there are seconds");
        assert!(fullest < 40, "{fullest} in one second");
    }

    proptest! {
        #[test]
        fn a_pause_is_within_its_bounds_and_grows_until_it_is_an_hour(attempt in 1u32..40, seed: u64) {
            let pause = pause_ms(attempt, seed);
            prop_assert!((FIRST_MS * 3 / 4..=LONGEST_MS).contains(&pause));
            prop_assert_eq!(pause, pause_ms(attempt, seed));
            if attempt <= 6 {
                prop_assert!(pause < pause_ms(attempt + 1, seed));
            } else {
                prop_assert!(pause >= FIRST_MS * 32 * 3 / 4);
            }
        }
    }
}
