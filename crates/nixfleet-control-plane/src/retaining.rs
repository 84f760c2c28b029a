//! Old events go, by a clock that is believed only while it runs as time does: one step forward must not take the whole log.
//!
//! What the clock said at the last run is kept. One that is more than a day further than the time that has passed since is
//! doubted for a day, and so is one after a long pause of the server: nothing is lost by waiting. That day goes on when the
//! server is started anew. Called by [`crate::server`].

use std::time::{Duration, Instant};

use nixfleet_core::model::time::{Secs, UnixMs};
use nixfleet_sys::random;
use tokio::time::sleep;

use crate::say;
use crate::store::retention::Removed;
use crate::store::{Store, StoreError};

/// How often old events are removed.
const EVERY: Duration = Duration::from_hours(6);
/// How much further than expected a clock may be, and for how long it is doubted otherwise.
const DOUBT: Secs = Secs(86_400);
/// Under which name the time of the last run is kept, and until when the clock is doubted by its own time.
const RETAINED: &str = "retained";
const DOUBTED_UNTIL: &str = "retained-doubted-until";

/// What a clock is held against.
#[derive(Debug)]
pub struct Believed {
    /// What it said, and how long the process had been there.
    seen: (UnixMs, Duration),
    /// It is doubted until the process has been there for so long.
    doubted_until: Duration,
}

/// What became of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Run {
    /// This was removed.
    Removed(Removed),
    /// The clock is doubted; nothing was.
    Doubted,
}

impl Believed {
    /// By what it said when it was last held against this, or when the newest event was written.
    pub async fn begin(store: &Store, now: UnixMs) -> Result<Self, StoreError> {
        let seen = match kept(store, RETAINED).await? {
            Some(kept) => kept,
            None => store.newest_event_at().await?.unwrap_or(now),
        };
        let mut believed = Self::since(seen);
        let left = kept(store, DOUBTED_UNTIL).await?.map_or(0, |until| until.ms_since(now));
        // More than a day would be left where the clock was set back, so it is not the one that was doubted.
        if left <= u64::from(DOUBT.0) * 1_000 {
            believed.doubted_until = Duration::from_millis(left);
        }
        Ok(believed)
    }

    /// By what it said when the process began.
    pub fn since(seen: UnixMs) -> Self {
        Self { seen: (seen, Duration::ZERO), doubted_until: Duration::ZERO }
    }

    /// Whether it may be believed now that the process has been there for `up`.
    pub fn is_believed(&mut self, now: UnixMs, up: Duration) -> bool {
        let (seen, then) = self.seen;
        let passed = u64::try_from(up.saturating_sub(then).as_millis()).unwrap_or(u64::MAX);
        let is_ahead = now.ms_since(seen) > passed.saturating_add(u64::from(DOUBT.0) * 1_000);
        if is_ahead {
            self.doubted_until = up + Duration::from_secs(u64::from(DOUBT.0));
        }
        self.seen = (now, up);
        up >= self.doubted_until
    }
}

/// Removes what is older than `keep`, if the clock is believed.
pub async fn run(
    store: &Store,
    believed: &mut Believed,
    keep: Duration,
    (now, up): (UnixMs, Duration),
) -> Result<Run, StoreError> {
    if !believed.is_believed(now, up) {
        let left = believed.doubted_until.saturating_sub(up);
        let until = now.plus(Secs(u32::try_from(left.as_secs()).unwrap_or(DOUBT.0)));
        keep_times(store, now, &[(RETAINED, now), (DOUBTED_UNTIL, until)]).await?;
        return Ok(Run::Doubted);
    }
    let keep_ms = u64::try_from(keep.as_millis()).unwrap_or(u64::MAX);
    let before = UnixMs::new(now.ms_since(UnixMs::EPOCH).saturating_sub(keep_ms)).unwrap_or(UnixMs::EPOCH);
    let removed = store.retain(now, before).await?;
    keep_times(store, now, &[(RETAINED, now)]).await?;
    Ok(Run::Removed(removed))
}

/// The time that is kept under `name`.
async fn kept(store: &Store, name: &'static str) -> Result<Option<UnixMs>, StoreError> {
    let bytes = store.setting(name).await?;
    Ok(bytes.and_then(|bytes| UnixMs::new(String::from_utf8(bytes).ok()?.parse().ok()?).ok()))
}

async fn keep_times(store: &Store, now: UnixMs, times: &[(&'static str, UnixMs)]) -> Result<(), StoreError> {
    let mut write = store.begin(now).await?;
    for (name, time) in times {
        write.set(name, time.get().to_string().as_bytes()).await?;
    }
    write.commit().await?;
    Ok(())
}

/// Goes on for ever; to be aborted at the end of the process.
pub(crate) async fn go(store: Store, clock: fn() -> UnixMs, keep: Duration) {
    let begun = Instant::now();
    let mut believed = Believed::begin(&store, clock()).await.unwrap_or_else(|error| {
        say::error("it is not known when old events were last removed", &error);
        Believed::since(clock())
    });
    loop {
        // Spread, so that replicas do not do it at the same time.
        let share = f64::from(u16::try_from(random::number() >> 48).unwrap_or(0)) / 65_536.0;
        sleep(EVERY.mul_f64(0.5 + share)).await;
        match run(&store, &mut believed, keep, (clock(), begun.elapsed())).await {
            Ok(Run::Removed(removed)) if removed.events > 0 => {
                say::line(&format!(
                    "removed {} old events and {} releases",
                    removed.events, removed.releases
                ));
            }
            Ok(Run::Removed(_)) => {}
            Ok(Run::Doubted) => say::line(
                "error: no old events are removed, since the clock is far ahead of when they last were\n\nhint: set it \
                 right; after a day in which it runs evenly it is believed",
            ),
            Err(error) => say::error("old events could not be removed", &error),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HOUR: Duration = Duration::from_hours(1);

    fn at(hours: u64) -> UnixMs {
        UnixMs::new(1_700_000_000_000 + hours * 3_600_000).expect("a time")
    }

    proptest! {
        #[test]
        fn a_clock_that_runs_as_time_does_is_always_believed(steps in prop::collection::vec(1u32..100, 1..50)) {
            let (mut believed, mut hours) = (Believed::since(at(0)), 0);
            for step in steps {
                hours += step;
                prop_assert!(believed.is_believed(at(u64::from(hours)), HOUR * hours));
            }
        }
    }

    #[test]
    fn a_clock_that_jumped_is_believed_when_it_ran_evenly_for_a_day_and_not_before() {
        let mut believed = Believed::since(at(0));
        assert!(believed.is_believed(at(6), HOUR * 6));
        let jump = 400 * 24;
        for (hours, expected) in [(12, false), (18, false), (35, false), (36, true), (42, true)] {
            assert_eq!(
                believed.is_believed(at(jump + hours), HOUR * u32::try_from(hours).expect("few")),
                expected
            );
        }
        // Set right again, it says less than before, which removes less.
        assert!(believed.is_believed(at(48), HOUR * 48));
    }
}
