//! Waits for an instant that may be far away, and wakes the process once, then.
//!
//! The runtime keeps its timers in wheels of finer and finer slots: one that is a minute away wakes the process each time it
//! moves from a coarse wheel to a finer one, twice before its time. Who waits for a minute again and again, and should not
//! be noticed while it does, asks the kernel instead. Elsewhere than on Linux, and where the kernel has no timer for us, it is
//! the runtime's after all.

use std::future::Future;

use tokio::time::{self, Instant};

/// The instant came before the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Elapsed;

/// Waits until `until`. Cancel-safe.
pub async fn sleep_until(until: Instant) {
    #[cfg(target_os = "linux")]
    if far::is_far(until) && far::wait(until).await.is_ok() {
        return;
    }
    time::sleep_until(until).await;
}

/// The answer of `future`, if it comes before `until`.
///
/// # Errors
/// It did not; the future is dropped.
pub async fn timeout_at<F: Future>(until: Instant, future: F) -> Result<F::Output, Elapsed> {
    tokio::select! {
        biased;
        answer = future => Ok(answer),
        () = sleep_until(until) => Err(Elapsed),
    }
}

#[cfg(target_os = "linux")]
mod far {
    use std::io;
    use std::time::Duration;

    use rustix::time::{
        Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
        timerfd_settime,
    };
    use tokio::io::Interest;
    use tokio::io::unix::AsyncFd;
    use tokio::time::Instant;

    /// From here on the runtime's wheels wake twice and more (a slot of the second one is 64 ms, the wheel is 4 s).
    const FAR: Duration = Duration::from_secs(2);

    pub(super) fn is_far(until: Instant) -> bool {
        until.saturating_duration_since(Instant::now()) >= FAR
    }

    /// Waits by a timer of the kernel, whose clock is not moved by setting the time.
    pub(super) async fn wait(until: Instant) -> io::Result<()> {
        let fd = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?;
        let span = until.saturating_duration_since(Instant::now()).max(Duration::from_nanos(1));
        let value = Timespec::try_from(span).map_err(|_| io::ErrorKind::InvalidInput)?;
        let once = Itimerspec { it_interval: Timespec::default(), it_value: value };
        timerfd_settime(&fd, TimerfdTimerFlags::empty(), &once)?;
        // As for the watch of a folder: what the deprecated call must be promised holds for an `OwnedFd`.
        #[expect(deprecated, reason = "its replacement is unsafe, and this workspace has no unsafe code")]
        let fd = AsyncFd::with_interest(fd, Interest::READABLE)?;
        drop(fd.readable().await?);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn nobody_is_woken_before_the_time_whether_it_is_near_or_far() {
        for ms in [0, 30, 2_100] {
            let until = Instant::now() + Duration::from_millis(ms);
            sleep_until(until).await;
            assert!(Instant::now() >= until, "{ms} ms");
        }
    }

    #[tokio::test]
    async fn an_answer_counts_if_it_comes_first_and_the_time_if_it_does_not() {
        let far = Instant::now() + Duration::from_hours(1);
        assert_eq!(timeout_at(far, async { 7 }).await, Ok(7));
        let soon = Instant::now() + Duration::from_millis(20);
        assert_eq!(timeout_at(soon, std::future::pending::<()>()).await, Err(Elapsed));
        assert_eq!(timeout_at(Instant::now(), async { 7 }).await, Ok(7), "an answer that is there counts");
    }
}
