//! Since when somebody listens: the silence of hosts is counted from there.
//!
//! Who cannot be heard must not look as if they were silent. A server that was away, a database that did not answer, a
//! process that stood still, a machine that slept and a clock that was set forward all make each host seem to have been
//! silent for as long; hosts that were moving would count as lost, and nobody would wait for the others. So whoever plans
//! looks here before it looks at the clock, and after such a time silence begins anew for everybody. That can only delay.
//!
//! Two clocks are compared: the one that hosts' signs of life are dated by, and one that is never set. The planner asks
//! ([`crate::planner`]); nothing here waits or writes.

use std::fmt;
use std::time::{Duration, Instant};

use nixfleet_core::model::time::UnixMs;

/// Longer than rounds are ever apart: a tick, a rest, and the writing of [`crate::planner`]'s largest part.
const ROUNDS_APART_MAX: Duration = Duration::from_secs(15);
/// Clocks that are kept right by slewing drift by 0.05 % at most: 8 ms between two rounds. What is more was a step.
const STEP_MIN: Duration = Duration::from_secs(5);

/// When it was looked at the clocks last, and whether everything went well since.
#[derive(Debug)]
pub struct Listening {
    last: (UnixMs, Instant),
    has_failed: bool,
}

/// Why nobody could be heard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deaf {
    /// A round failed: what hosts report was not taken in either.
    Failed,
    /// No round was made for so long.
    StoodStill(Duration),
    /// The clock was set, by so much either way.
    ClockSet(Duration),
}

impl fmt::Display for Deaf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failed => f.write_str("the database did not answer"),
            Self::StoodStill(span) => write!(f, "this process stood still for {} s", span.as_secs()),
            Self::ClockSet(span) => write!(f, "the clock was set by {} s", span.as_secs()),
        }
    }
}

impl Listening {
    /// Silence is counted from these times of the two clocks.
    pub fn since(clock: UnixMs, steady: Instant) -> Self {
        Self { last: (clock, steady), has_failed: false }
    }

    /// A round failed.
    pub fn failed(&mut self) {
        self.has_failed = true;
    }

    /// A round goes well so far, at these times of the two clocks. Says why silence has to be counted from now on, if it has.
    pub fn look(&mut self, clock: UnixMs, steady: Instant) -> Option<Deaf> {
        let failed = std::mem::take(&mut self.has_failed).then_some(Deaf::Failed);
        let (then, steady_then) = std::mem::replace(&mut self.last, (clock, steady));
        let apart = steady.saturating_duration_since(steady_then);
        let by_clock = i128::from(clock.get()) - i128::from(then.get());
        let step = by_clock - i128::try_from(apart.as_millis()).unwrap_or(i128::MAX);
        let step = Duration::from_millis(u64::try_from(step.unsigned_abs()).unwrap_or(u64::MAX));
        failed
            .or((apart > ROUNDS_APART_MAX).then_some(Deaf::StoodStill(apart)))
            .or((step > STEP_MIN).then_some(Deaf::ClockSet(step)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Both clocks after so many seconds, the one that can be set with so many more.
    fn at(begun: Instant, secs: u64, set_by: i64) -> (UnixMs, Instant) {
        let clock = 1_767_571_200_000u64 + secs * 1_000;
        let clock = clock.checked_add_signed(set_by * 1_000).expect("in range");
        (UnixMs::new(clock).expect("a time"), begun + Duration::from_secs(secs))
    }

    fn looks(rounds: &[(u64, i64)]) -> Vec<Option<Deaf>> {
        let begun = Instant::now();
        let (clock, steady) = at(begun, 0, 0);
        let mut listening = Listening::since(clock, steady);
        let look = |(secs, set_by): &(u64, i64)| {
            let (clock, steady) = at(begun, *secs, *set_by);
            listening.look(clock, steady)
        };
        rounds.iter().map(look).collect()
    }

    #[test]
    fn rounds_that_follow_each_other_are_one_time_of_listening() {
        assert_eq!(looks(&[(0, 0), (1, 0), (3, 0), (13, 1), (14, 0)]), [None; 5]);
    }

    #[test]
    fn a_process_that_stood_still_has_heard_nobody() {
        let still = Some(Deaf::StoodStill(Duration::from_mins(20)));
        assert_eq!(looks(&[(0, 0), (1_200, 0), (1_201, 0)]), [None, still, None]);
    }

    #[test]
    fn a_clock_that_is_set_either_way_makes_nobody_silent_and_so_does_a_machine_that_slept() {
        let hour = Some(Deaf::ClockSet(Duration::from_hours(1)));
        assert_eq!(looks(&[(0, 0), (1, 3_600), (2, 3_600), (3, 0)]), [None, hour, None, hour]);
    }

    #[test]
    fn a_round_that_failed_is_remembered_until_one_goes_well_also_the_first() {
        let begun = Instant::now();
        let (clock, steady) = at(begun, 0, 0);
        let mut listening = Listening::since(clock, steady);
        let look = |listening: &mut Listening, secs| {
            let (clock, steady) = at(begun, secs, 0);
            listening.look(clock, steady)
        };
        listening.failed();
        listening.failed();
        assert_eq!(look(&mut listening, 2), Some(Deaf::Failed));
        assert_eq!(look(&mut listening, 3), None);
    }
}
