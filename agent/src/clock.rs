//! The clock of the agent. Decisions read no other.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use agent_core::Time;
use tokio::time::Instant;

/// Monotonic time since the start of the agent. Decisions use [`Time`] only; tasks convert it here.
#[derive(Copy, Clone, Debug)]
pub struct Clock {
    start: Instant,
}

impl Clock {
    pub fn start() -> Self {
        Self { start: Instant::now() }
    }

    pub fn now(&self) -> Time {
        Time::since_start(self.start.elapsed())
    }

    /// The instant of a time, for timers.
    pub fn instant(&self, at: Time) -> Instant {
        self.start + at.since(Time::AGENT_START)
    }
}

/// Seconds since 1970, for files and people, not for decisions.
pub fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs()
}
