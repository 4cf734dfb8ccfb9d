//! The one time type of decisions: a point on the agent's monotonic line.
//!
//! Not a calendar date. Only the tasks of the agent read a clock; here a time is
//! always an argument.

use std::{
    ops::{Add, Sub},
    time::Duration,
};

use serde::{Serialize, Serializer};

/// A moment, in microseconds on a monotonic line.
///
/// The agent starts at [`Time::AGENT_START`], decades after zero, so that
/// sessions that began long before it have their place on the line.
///
/// In JSON: seconds since the agent's start, negative before it.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time(u64);

impl Time {
    /// The moment at which the agent's process started.
    pub const AGENT_START: Time = Time(1_000_000_000_000_000);

    /// The moment `elapsed` after the agent's start.
    pub fn since_start(elapsed: Duration) -> Time {
        Time::AGENT_START + elapsed
    }

    /// How long ago `earlier` was; zero if it is not earlier.
    pub fn since(self, earlier: Time) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }

    /// How long it is until `later`; zero if it has passed.
    pub fn until(self, later: Time) -> Duration {
        later.since(self)
    }
}

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let after = self.since(Time::AGENT_START).as_secs_f64();
        let before = Time::AGENT_START.since(*self).as_secs_f64();
        serializer.serialize_f64(after - before)
    }
}

impl Add<Duration> for Time {
    type Output = Time;
    fn add(self, by: Duration) -> Time {
        Time(self.0.saturating_add(micros(by)))
    }
}

impl Sub<Duration> for Time {
    type Output = Time;
    fn sub(self, by: Duration) -> Time {
        Time(self.0.saturating_sub(micros(by)))
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
