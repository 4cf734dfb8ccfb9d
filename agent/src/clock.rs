//! The only place that reads clocks for decisions.
//!
//! Decisions use [`Time`], the time since the agent's start. Tokio's clock stops while the host is
//! suspended (CLOCK_MONOTONIC), while databases, proxies and clients go on. So the time that the host
//! was suspended is added: what the agent saw before is as old as it really is.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use agent_core::Time;
use rustix::time::{ClockId, clock_gettime};
use tokio::time::Instant;

/// Shorter suspensions are not counted. The two clocks cannot be read at once, so a smaller difference
/// may be a moment in which this thread did not run between the two readings.
const LEAST: Duration = Duration::from_millis(100);

static SUSPENSIONS: Mutex<Suspensions> = Mutex::new(Suspensions { before: None, total: Duration::ZERO });

/// The agent's clock. Never goes back.
#[derive(Copy, Clone, Debug)]
pub struct Clock {
    start: Instant,
    /// Suspended time before the start.
    suspended: Duration,
}

impl Clock {
    pub fn start() -> Self {
        Self { start: Instant::now(), suspended: suspended() }
    }

    pub fn now(&self) -> Time {
        Time::since_start(self.start.elapsed() + suspended().saturating_sub(self.suspended))
    }

    /// The instant of a time, for timers.
    pub fn instant(&self, at: Time) -> Instant {
        let suspended = suspended().saturating_sub(self.suspended);
        self.start + at.since(Time::AGENT_START).saturating_sub(suspended)
    }
}

/// The time until a moment in seconds since 1970; zero if it has passed.
pub fn seconds_until(unix: u64) -> Duration {
    Duration::from_secs(unix.saturating_sub(unix_seconds()))
}

/// How long the host has been suspended since this was called first.
fn suspended() -> Duration {
    let read = |id| Duration::try_from(clock_gettime(id)).unwrap_or_default();
    let mut suspensions = SUSPENSIONS.lock().unwrap_or_else(PoisonError::into_inner);
    let boottime = read(ClockId::Boottime);
    // Read last: a pause between the two readings can only make the difference smaller.
    let monotonic = read(ClockId::Monotonic);
    suspensions.observe(boottime.saturating_sub(monotonic))
}

/// The difference between CLOCK_BOOTTIME and CLOCK_MONOTONIC, which grows by each suspension.
struct Suspensions {
    /// At the first reading.
    before: Option<Duration>,
    total: Duration,
}

impl Suspensions {
    fn observe(&mut self, difference: Duration) -> Duration {
        let before = *self.before.get_or_insert(difference);
        let total = difference.saturating_sub(before);
        if total >= self.total + LEAST {
            self.total = total;
        }
        self.total
    }
}

/// The same in milliseconds.
pub fn unix_millis() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Seconds since 1970, for files and people, not for decisions.
pub fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_suspension_is_counted_and_the_total_never_shrinks() {
        let mut suspensions = Suspensions { before: None, total: Duration::ZERO };
        let ms = Duration::from_millis;
        // The host had been suspended before the agent started.
        assert_eq!(suspensions.observe(ms(5_000)), Duration::ZERO);
        // A thread that paused between the readings, and noise.
        assert_eq!(suspensions.observe(ms(4_000)), Duration::ZERO);
        assert_eq!(suspensions.observe(ms(5_001)), Duration::ZERO);
        assert_eq!(suspensions.observe(ms(65_000)), ms(60_000));
        assert_eq!(suspensions.observe(ms(64_900)), ms(60_000));
        assert_eq!(suspensions.observe(ms(75_000)), ms(70_000));
    }

    #[tokio::test(start_paused = true)]
    async fn an_instant_is_the_same_moment_as_its_time() {
        let clock = Clock::start();
        let at = clock.now() + Duration::from_secs(10);
        tokio::time::sleep_until(clock.instant(at)).await;
        assert!(clock.now() >= at);
    }
}
