//! What is promised of a load whose sessions the agent closes.

use super::Summary;
use crate::bench::Bar;

/// How long a session may live on past its limit once it has paused, in seconds.
const LONGEST_S: f64 = 5.0;

/// A rate is judged from so many closes on: of fewer, one that broke says nothing.
const ENOUGH: u64 = 1_000;

/// What is promised of one variant. The rest is the same for all: nothing at COMMIT, tables exact,
/// budget kept, no session long past its limit, none closed that is none of the agent's business.
#[derive(Clone, Copy, Debug)]
pub(super) struct Promise {
    /// Inside a transaction at most one in so many closes.
    pub inside_one_in: u64,
    /// At BEGIN at most so many in 1,000 closes; none where that is not promised.
    pub at_begin_per_1000: Option<u64>,
}

impl Promise {
    pub(super) fn judge(self, summary: &Summary) -> Bar {
        let kinds = [&summary.mixed, &summary.busy];
        let closes: u64 = kinds.iter().map(|kind| kind.retirements).sum();
        let inside = kinds.iter().map(|kind| kind.inside.events).sum();
        let at_begin = kinds.iter().map(|kind| kind.at_begin.events).sum();
        let at_commit = kinds.iter().map(|kind| kind.at_commit.events).sum();
        let mut bar = Bar::default();
        if closes >= ENOUGH {
            bar = bar.count("inside", inside, (closes / self.inside_one_in).max(1));
            if let Some(in_1000) = self.at_begin_per_1000 {
                bar = bar.count("at BEGIN", at_begin, closes * in_1000 / 1_000);
            }
        }
        bar = bar
            .count("at COMMIT", at_commit, 0)
            .count("rows there after an error", summary.autocommit_present_after_error, 0)
            .holds("tables exact", summary.exact)
            .count(
                "closes and own logins in a second",
                summary.max_closes_and_own_logins_per_s as u64,
                u64::from(summary.budget_per_s),
            )
            .count("idle sessions of others closed", summary.idle_closed, 0);
        match summary.longest_after_pause_s {
            Some(longest) => bar.at_most("seconds past the limit after a pause", longest, LONGEST_S),
            None => bar,
        }
    }
}
