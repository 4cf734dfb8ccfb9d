//! What one variant did to its clients.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;

use crate::load::{Interval, Latency, LoadReport, Verified};

/// Counts of one kind of clients with transactions.
#[derive(Clone, Debug, Serialize)]
pub struct Kind {
    /// Closes that they met, well or ill.
    pub retirements: u64,
    /// BEGIN was sent and failed.
    pub at_begin: Interval,
    /// Failed after BEGIN succeeded.
    pub inside: Interval,
    /// COMMIT was sent and not acknowledged.
    pub at_commit: Interval,
    /// BEGINs that failed and went well when tried again.
    pub begins_retried: u64,
    /// Commits that were acknowledged.
    pub transactions: u64,
}

/// What one variant did to its clients. Times are in the units of the names.
#[derive(Clone, Debug, Serialize)]
pub struct Summary {
    /// How long the clients ran.
    pub seconds: f64,
    /// All that broke of all closes, clients with transactions only.
    pub broken: Interval,
    /// Those with pauses up to 2 s.
    pub mixed: Kind,
    /// Those that never pause longer than 50 ms.
    pub busy: Kind,
    /// Rows whose INSERT in autocommit was sent and not acknowledged, of closes that these clients met.
    pub autocommit_failed: Interval,
    /// Of those, rows that are there: a client that tries again would have them twice.
    pub autocommit_present_after_error: u64,
    /// Whether the tables have exactly the acknowledged rows.
    pub exact: bool,
    /// What the tables have, clients with pauses and rows.
    pub tables_mixed: Verified,
    /// The same of the busy ones.
    pub tables_busy: Verified,
    /// The greatest age any session can have before it has to go; 0 without an agent.
    pub limit_s: f64,
    /// Oldest session of a client with pauses, as the database showed it.
    pub oldest_s: f64,
    /// How long such a session lived on, past its limit, after it had first paused for
    /// `quiet_min` and a poll; none where the database does not show transactions apart.
    pub longest_after_pause_s: Option<f64>,
    /// How far past its own limit the agent closed a session of a client with pauses, at most.
    pub most_overdue_s: f64,
    /// Closes that the agent says it made.
    pub agent_closes: u64,
    /// The agent's `login_budget`; 0 without an agent.
    pub budget_per_s: u32,
    /// Closes by the agent and its own logins within any one second.
    pub max_closes_and_own_logins_per_s: usize,
    /// Logins of clients that had been closed, within any one second.
    pub max_relogins_per_s: usize,
    pub failed_logins: u64,
    /// A new connection, from dialling to the first answer.
    pub connect: Latency,
    /// The statements of a transaction.
    pub transaction: Latency,
    /// Idle sessions beside them that were closed; there should be none.
    pub idle_closed: u64,
    /// What ended sessions, with how often.
    pub causes: BTreeMap<String, u64>,
    /// What the agent held at the end, with how often.
    pub holds: Value,
}

impl Kind {
    pub(super) fn of(report: &LoadReport) -> Self {
        Self {
            retirements: report.retirements(),
            at_begin: report.rate_at_begin(),
            inside: report.rate_inside(),
            at_commit: report.rate_at_commit(),
            begins_retried: report.begins_retried,
            transactions: report.transactions,
        }
    }

    fn line(&self, who: &str) -> String {
        format!(
            "{who}: {} closes of {} transactions; at BEGIN {}, inside {}, at COMMIT {}; {} retried",
            self.retirements,
            self.transactions,
            per_thousand(&self.at_begin),
            per_thousand(&self.inside),
            per_thousand(&self.at_commit),
            self.begins_retried,
        )
    }
}

impl Summary {
    /// What is worth reading, for people.
    pub fn lines(&self) -> Vec<String> {
        vec![
            self.mixed.line("mixed"),
            self.busy.line("busy"),
            format!(
                "autocommit: {} of {} closes failed an INSERT, {} of these rows are there; tables {}",
                self.autocommit_failed.events,
                self.autocommit_failed.trials,
                self.autocommit_present_after_error,
                if self.exact { "exact" } else { "NOT exact" },
            ),
            format!(
                "oldest {:.1} s, limit {:.1} s, closed at most {:.1} s past its limit; past it and after a pause lived {}",
                self.oldest_s,
                self.limit_s,
                self.most_overdue_s,
                self.longest_after_pause_s.map_or("?".to_owned(), |seconds| format!("{seconds:.1} s")),
            ),
            format!(
                "closes and own logins at most {} in a second, budget {}; clients' logins at most {}, failed {}",
                self.max_closes_and_own_logins_per_s,
                self.budget_per_s,
                self.max_relogins_per_s,
                self.failed_logins
            ),
            format!(
                "new connection p50 {:.1} ms, p99 {:.1} ms; transaction p50 {:.1} ms, p99 {:.1} ms; {:.0} s; holds {}",
                self.connect.p50_ms,
                self.connect.p99_ms,
                self.transaction.p50_ms,
                self.transaction.p99_ms,
                self.seconds,
                self.holds,
            ),
        ]
    }
}

/// `3 (2.0 [0.7-5.9] per 1,000)`
fn per_thousand(rate: &Interval) -> String {
    format!(
        "{} ({:.1} [{:.1}-{:.1}] per 1,000)",
        rate.events,
        rate.rate * 1e3,
        rate.low * 1e3,
        rate.high * 1e3
    )
}
