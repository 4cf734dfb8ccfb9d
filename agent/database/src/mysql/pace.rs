//! How often `innodb_trx` may be read.
//!
//! It is a cache that the server fills anew only after 100 ms in which nobody reads it. Every
//! reader keeps it from that, each other agent too: read by all of them as often as by one, it
//! would say nothing new, to anybody. So every read of the agent's takes its turn here.

use std::time::{Duration, Instant};

/// The least time between two reads by all agents together.
const EVERY: Duration = Duration::from_millis(250);

/// The turns of one session.
#[derive(Debug, Default)]
pub(super) struct TrxPace {
    read: Option<Instant>,
    agents: u32,
}

impl TrxPace {
    /// How long it is until the next turn.
    pub(super) fn wait(&self, now: Instant) -> Duration {
        let every = EVERY * self.agents.clamp(1, 40);
        self.read.map_or(Duration::ZERO, |read| every.saturating_sub(now.saturating_duration_since(read)))
    }

    /// Whether it may be read now.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.wait(now).is_zero()
    }

    /// It was read, at the latest now.
    pub(super) fn read(&mut self, now: Instant) {
        self.read = Some(now);
    }

    /// So many agents were seen on the server.
    pub(super) fn shared_by(&mut self, agents: usize) {
        self.agents = u32::try_from(agents).unwrap_or(u32::MAX);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Whoever asks for it, and however often: looks, closes and catches alike.
        #[test]
        fn no_two_reads_are_nearer_than_the_pace(
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

        /// Five agents of whatever phases leave the server 100 ms now and then.
        #[test]
        fn several_agents_together_leave_the_server_its_pause(phases in prop::collection::vec(0_u64..1_250, 5)) {
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
    fn one_that_has_to_wait_is_told_for_how_long() {
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
