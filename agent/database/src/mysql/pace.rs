//! How often `innodb_trx` may be read.
//!
//! The server refreshes this cache only after 100 ms without a reader. If every agent read it as
//! often as a single one may, it would never be refreshed for any of them. So the interval is
//! shared by all agents, and every read waits for its turn.

use std::time::{Duration, Instant};

/// The least time between two reads by all agents together. The cache needs 100 ms without a
/// reader to be refreshed; a quarter of a second leaves room for that next to one monitoring tool
/// that reads it once a second.
const EVERY: Duration = Duration::from_millis(250);

#[derive(Debug, Default)]
pub(super) struct TrxPace {
    read: Option<Instant>,
    agents: u32,
}

impl TrxPace {
    /// The time until the next read.
    pub(super) fn wait(&self, now: Instant) -> Duration {
        let every = EVERY * self.agents.clamp(1, 40);
        self.read.map_or(Duration::ZERO, |read| every.saturating_sub(now.saturating_duration_since(read)))
    }

    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.wait(now).is_zero()
    }

    /// Records a read, which happened at `now` at the latest.
    pub(super) fn read(&mut self, now: Instant) {
        self.read = Some(now);
    }

    /// Sets the number of agents that share the interval.
    pub(super) fn shared_by(&mut self, agents: usize) {
        self.agents = u32::try_from(agents).unwrap_or(u32::MAX);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// For every kind of read: activity, close and catch.
        #[test]
        fn no_two_reads_are_closer_than_the_interval(
            agents in 0_usize..60,
            asked_after_ms in prop::collection::vec(0_u64..400, 1..200),
        ) {
            let mut pace = TrxPace::default();
            pace.shared_by(agents);
            let mut now = Instant::now();
            let mut reads = Vec::new();
            for gap in asked_after_ms {
                now += Duration::from_millis(gap);
                if pace.is_due(now) {
                    pace.read(now);
                    reads.push(now);
                }
            }
            let least = EVERY * u32::try_from(agents.clamp(1, 40)).unwrap();
            prop_assert!(reads.windows(2).all(|pair| pair[1] - pair[0] >= least));
            prop_assert!(!reads.is_empty(), "the first is never waited for");
        }

        /// Five agents with arbitrary phases leave the server its 100 ms from time to time.
        #[test]
        fn several_agents_together_leave_time_for_a_refresh(phases in prop::collection::vec(0_u64..1_250, 5)) {
            let start = Instant::now();
            let mut reads = Vec::new();
            for phase in phases {
                let mut pace = TrxPace::default();
                pace.shared_by(5);
                for ms in phase..10_000 {
                    let now = start + Duration::from_millis(ms);
                    if pace.is_due(now) {
                        pace.read(now);
                        reads.push(ms);
                    }
                }
            }
            prop_assert!(reads.len() <= 40, "{} reads in ten seconds", reads.len());
            reads.sort_unstable();
            let pauses = reads.windows(2).filter(|pair| pair[1] - pair[0] > 100).count();
            prop_assert!(pauses >= 7, "{pauses}");
        }
    }

    #[test]
    fn the_wait_is_the_rest_of_the_interval() {
        let now = Instant::now();
        let mut pace = TrxPace::default();
        assert_eq!(pace.wait(now), Duration::ZERO);
        pace.read(now);
        assert_eq!(pace.wait(now + Duration::from_millis(100)), Duration::from_millis(150));
        pace.shared_by(3);
        assert_eq!(pace.wait(now + Duration::from_millis(100)), Duration::from_millis(650));
        assert!(pace.is_due(now + Duration::from_millis(750)));
    }
}
