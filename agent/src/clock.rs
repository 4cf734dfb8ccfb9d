//! The only place that reads clocks for decisions.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use agent_core::Time;
use tokio::time::Instant;

/// The agent's monotonic line: decisions know only [`Time`], tasks translate here.
#[derive(Copy, Clone, Debug)]
pub struct Clock {
    start: Instant,
}

impl Clock {
    /// A clock whose line starts now.
    pub fn start() -> Self {
        Self { start: Instant::now() }
    }

    /// The moment it is now.
    pub fn now(&self) -> Time {
        Time::since_start(self.start.elapsed())
    }

    /// The runtime's instant of a moment, for sleeping until it.
    pub fn instant(&self, at: Time) -> Instant {
        self.start + at.since(Time::AGENT_START)
    }
}

/// Seconds since 1970: for files and people, never for decisions.
pub fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs()
}
