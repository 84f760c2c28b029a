//! How long to sleep between two requests to a server. Pure: randomness is an argument. ([`super::retry`] is about what a host
//! tries again by itself, which it must be able to tell from its records, and so needs no randomness.)
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
/// The longest `Retry-After` that is read: a date has 29 characters.
const RETRY_AFTER_BYTES_MAX: usize = 64;
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

/// For how long a server wants not to be asked, by the `Retry-After` of its answer: a number of seconds, or a date. The date is
/// taken against the answer's own `Date`, since the clock of a host may be wrong; without one it says nothing.
pub fn retry_after(text: &str, answered: Option<&str>) -> Option<Duration> {
    let text = text.trim();
    if text.is_empty() || text.len() > RETRY_AFTER_BYTES_MAX {
        return None;
    }
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        // More than fits is for ever, which is heard up to a limit.
        return Some(Duration::from_secs(text.parse().unwrap_or(u64::MAX)));
    }
    let span = second(text)?.saturating_sub(second(answered?.trim())?);
    // Past is at once.
    Some(Duration::from_secs(u64::try_from(span).unwrap_or(0)))
}

/// The second since 1970 of a date as HTTP writes it.
fn second(date: &str) -> Option<i64> {
    let date = Some(date).filter(|date| date.len() <= RETRY_AFTER_BYTES_MAX)?;
    Some(jiff::fmt::rfc2822::parse(date).ok()?.timestamp().as_second())
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

    #[test]
    fn a_server_says_its_pause_in_seconds_or_as_a_date_by_its_own_clock() {
        let secs = |text| retry_after(text, None).map(|span| span.as_secs());
        assert_eq!((secs("120"), secs(" 0 ")), (Some(120), Some(0)));
        assert_eq!(secs("99999999999999999999999"), Some(u64::MAX));
        let answered = Some("Sun, 06 Nov 1994 08:49:37 GMT");
        let until = |text| retry_after(text, answered).map(|span| span.as_secs());
        assert_eq!(until("Sun, 06 Nov 1994 08:51:37 GMT"), Some(120));
        assert_eq!(until("Sun, 06 Nov 1994 08:49:36 GMT"), Some(0), "it is past");
        assert_eq!(secs("Sun, 06 Nov 1994 08:51:37 GMT"), None, "by whose clock?");
        for nonsense in ["", "soon", "-1", "1.5", "+5", "0x10", "Sun, 99 Nov 1994 08:51:37 GMT"] {
            assert_eq!(until(nonsense), None, "{nonsense:?}");
        }
    }

    proptest! {
        #[test]
        fn whatever_a_server_says_the_pause_is_bounded(text in ".{0,80}", date in ".{0,80}", random: u64) {
            let asked = retry_after(&text, Some(&date));
            let drawn = after_failures(1, Urgency::Ordinary, random);
            let pause = as_asked(drawn, asked, Urgency::Ordinary);
            prop_assert!(pause >= drawn && pause <= ASKED_MAX + LONGEST_SPAN);
        }

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
