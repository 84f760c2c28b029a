//! How long to sleep between two looks. Pure: randomness is an argument.
//!
//! A fleet must not ask in step: not when it was switched on at once, and less so when its server comes back after an
//! outage. So each pause is spread, and after failures it is drawn from all of a growing span ("full jitter").

use std::time::Duration;

/// The span after the first failure.
const FIRST_SPAN: Duration = Duration::from_secs(5);
/// The longest span: a source that was away for long is found again within five minutes.
pub const LONGEST_SPAN: Duration = Duration::from_mins(5);
/// The shortest pause, so that a bad draw is not a busy loop.
const SHORTEST: Duration = Duration::from_secs(1);
/// While a trial waits for the source's answer, it is asked at least this often: the trial has minutes.
const URGENT_SPAN: Duration = Duration::from_secs(10);
/// How long a source may keep a host away at its word. Longer works by asking again, at the cost of one question; whoever
/// could forge it should not stop a fleet for a day.
const ASKED_MAX: Duration = Duration::from_mins(15);
/// An ordinary pause is spread by this part of itself to both sides.
const SPREAD: u32 = 5;

/// How much depends on the next look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Urgency {
    /// Nothing.
    Ordinary,
    /// A system on trial is kept only if the source answers.
    OnTrial,
}

/// The pause after a look that got an answer: `poll`, a fifth more or less.
pub fn after_answer(poll: Duration, random: u64) -> Duration {
    let least = poll / SPREAD * (SPREAD - 1);
    (least + part(poll / SPREAD * 2, random)).max(SHORTEST)
}

/// The pause after the last `failures` looks failed, at least one of them.
pub fn after_failures(failures: u32, urgency: Urgency, random: u64) -> Duration {
    let longest = match urgency {
        Urgency::Ordinary => LONGEST_SPAN,
        Urgency::OnTrial => URGENT_SPAN,
    };
    let doubled = FIRST_SPAN.saturating_mul(2_u32.saturating_pow(failures.saturating_sub(1)));
    part(doubled.min(longest), random).max(SHORTEST)
}

/// The pause after a source that wants not to be asked for a while: what was drawn comes on top, so that a fleet does not
/// come back in one second. `asked` is what the source said; it is heard up to a limit.
pub fn as_asked(drawn: Duration, asked: Option<Duration>, urgency: Urgency) -> Duration {
    let longest = match urgency {
        Urgency::Ordinary => ASKED_MAX,
        // A trial that the source does not answer in time is reverted, which costs the source more than a question.
        Urgency::OnTrial => URGENT_SPAN,
    };
    drawn + asked.unwrap_or_default().min(longest)
}

/// From nothing to the whole span, evenly over all values of `random`.
fn part(span: Duration, random: u64) -> Duration {
    let ms = u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
    let share = u128::from(ms) * u128::from(random) / u128::from(u64::MAX);
    Duration::from_millis(u64::try_from(share).unwrap_or(ms))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MINUTE: Duration = Duration::from_mins(1);

    #[test]
    fn the_ends_of_the_draw_are_the_ends_of_the_span() {
        assert_eq!(after_answer(MINUTE, 0), Duration::from_secs(48));
        assert_eq!(after_answer(MINUTE, u64::MAX), Duration::from_secs(72));
        assert_eq!(after_failures(1, Urgency::Ordinary, u64::MAX), Duration::from_secs(5));
        assert_eq!(after_failures(4, Urgency::Ordinary, u64::MAX), Duration::from_secs(40));
        assert_eq!(after_failures(4, Urgency::OnTrial, u64::MAX), Duration::from_secs(10));
        assert_eq!(after_failures(4, Urgency::Ordinary, 0), Duration::from_secs(1));
    }

    #[test]
    fn a_source_is_heard_and_not_for_ever() {
        let (drawn, asked) = (Duration::from_secs(2), |secs| Some(Duration::from_secs(secs)));
        assert_eq!(as_asked(drawn, None, Urgency::Ordinary), drawn);
        assert_eq!(as_asked(drawn, asked(120), Urgency::Ordinary), Duration::from_secs(122));
        assert_eq!(as_asked(drawn, asked(u64::MAX), Urgency::Ordinary), Duration::from_secs(902));
        assert_eq!(as_asked(drawn, asked(120), Urgency::OnTrial), Duration::from_secs(12));
    }

    proptest! {
        #[test]
        fn no_pause_is_a_busy_loop_or_longer_than_five_minutes(failures in 1u32.., random: u64) {
            for urgency in [Urgency::Ordinary, Urgency::OnTrial] {
                let pause = after_failures(failures, urgency, random);
                prop_assert!((Duration::from_secs(1)..=Duration::from_mins(5)).contains(&pause));
            }
        }

        #[test]
        fn a_fleet_that_lost_its_source_comes_back_spread(failures in 7u32..100) {
            // A thousand hosts with even draws: no second of the five minutes gets more than a hundredth of them.
            let mut by_second = std::collections::BTreeMap::<u64, u32>::new();
            for host in 0..1000_u64 {
                let pause = after_failures(failures, Urgency::Ordinary, host * (u64::MAX / 999));
                *by_second.entry(pause.as_secs()).or_default() += 1;
            }
            prop_assert!(by_second.values().all(|hosts| *hosts <= 10), "{by_second:?}");
        }
    }
}
