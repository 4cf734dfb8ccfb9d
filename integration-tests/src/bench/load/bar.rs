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

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::{
        bench::load::summary::Kind,
        load::{Interval, Latency, Verified},
    };

    const PROMISE: Promise = Promise { inside_one_in: 1_500, at_begin_per_1000: Some(5) };

    /// Of so many closes, so many broke.
    fn summary(closes: u64, at_begin: u64, inside: u64, at_commit: u64) -> Summary {
        let kind = |closes, at_begin, inside, at_commit| Kind {
            retirements: closes,
            at_begin: Interval::of(at_begin, closes),
            inside: Interval::of(inside, closes),
            at_commit: Interval::of(at_commit, closes),
            begins_retried: 0,
            transactions: 100 * closes,
        };
        let tables = Verified {
            commits_acknowledged: 0,
            commits_in_table: 0,
            commits_unacknowledged: 0,
            commits_lost: 0,
            rows_acknowledged: 0,
            rows_in_table: 0,
            rows_present_after_error: 0,
            rows_lost: 0,
        };
        Summary {
            seconds: 150.0,
            broken: Interval::of(at_begin + inside + at_commit, closes),
            mixed: kind(closes - 100, at_begin, inside, at_commit),
            busy: kind(100, 0, 0, 0),
            autocommit_failed: Interval::of(0, 100),
            autocommit_present_after_error: 0,
            exact: true,
            tables_mixed: tables,
            tables_busy: tables,
            limit_s: 5.5,
            oldest_s: 7.0,
            longest_after_pause_s: Some(1.0),
            most_overdue_s: 2.0,
            agent_closes: closes,
            budget_per_s: 20,
            max_closes_and_own_logins_per_s: 20,
            max_relogins_per_s: 20,
            failed_logins: 0,
            connect: Latency::default(),
            transaction: Latency::default(),
            idle_closed: 0,
            causes: std::collections::BTreeMap::new(),
            holds: Value::Null,
        }
    }

    fn missed(summary: &Summary) -> usize {
        PROMISE.judge(summary).missed.len()
    }

    #[test]
    fn what_is_just_promised_is_enough_and_one_more_is_not() {
        assert_eq!(missed(&summary(1_500, 7, 1, 0)), 0);
        assert_eq!(missed(&summary(1_500, 8, 1, 0)), 1, "at BEGIN");
        assert_eq!(missed(&summary(1_500, 7, 2, 0)), 1, "inside");
        assert_eq!(missed(&summary(3_000, 15, 2, 0)), 0);
        assert_eq!(missed(&summary(1_500, 7, 1, 1)), 1, "at COMMIT");
    }

    #[test]
    fn a_short_run_is_judged_by_what_never_happens_only() {
        assert_eq!(missed(&summary(150, 5, 2, 0)), 0);
        assert_eq!(missed(&summary(150, 0, 0, 1)), 1);
    }

    #[test]
    fn each_other_promise_is_judged_too() {
        let good = || summary(1_500, 0, 0, 0);
        let bad = [
            Summary { exact: false, ..good() },
            Summary { autocommit_present_after_error: 1, ..good() },
            Summary { max_closes_and_own_logins_per_s: 21, ..good() },
            Summary { idle_closed: 1, ..good() },
            Summary { longest_after_pause_s: Some(5.1), ..good() },
        ];
        for summary in bad {
            assert_eq!(missed(&summary), 1, "{summary:?}");
        }
        assert_eq!(missed(&Summary { longest_after_pause_s: None, ..good() }), 0, "not shown there");
    }
}
