//! What the clients of a load saw.

use std::{collections::BTreeMap, time::Duration};

use serde::Serialize;

use super::{
    Ending, Interval,
    tally::{Login, Tally},
};

/// The counts of a load so far. Times are in seconds after it began unless said otherwise.
#[derive(Clone, Debug, Serialize)]
pub struct LoadReport {
    /// How long it has run.
    pub seconds: f64,
    /// How many clients there are.
    pub clients: usize,
    /// Commits that were acknowledged.
    pub transactions: u64,
    /// Sessions that ended before their client's first transaction; no retirements, well or ill.
    pub ended_unprepared: u64,
    /// Closes that a look before BEGIN found.
    pub clean_retirements: u64,
    /// BEGINs that failed and went well when tried again; clients that may retry only.
    pub begins_retried: u64,
    /// BEGIN was sent and failed (where it may be retried: the retry too).
    pub broken_at_begin: u64,
    /// Failed after BEGIN succeeded.
    pub broken_inside: u64,
    /// COMMIT was sent and not acknowledged.
    pub broken_at_commit: u64,
    /// Rows whose INSERT was acknowledged.
    pub rows_inserted: u64,
    /// Closes that a look before INSERT found.
    pub rows_clean_retirements: u64,
    /// Rows whose INSERT was sent and not acknowledged.
    pub rows_failed: u64,
    /// Sessions that only had to be there and were closed.
    pub steady_closed: u64,
    /// Logins that went well.
    pub logins: u64,
    /// Logins that did not.
    pub failed_logins: u64,
    /// Most logins that ended within any one second, those at the begin included.
    pub max_logins_per_s: u64,
    /// The same without the first login of each client: what closes caused.
    pub max_relogins_per_s: u64,
    /// A new connection: from dialling to the first answer to a query.
    pub connect: Latency,
    /// The statements of a transaction together, without its client's pause.
    pub transaction: Latency,
    /// What ended sessions and refused logins, with how often.
    pub causes: BTreeMap<String, u64>,
    /// Each session that only had to be there.
    pub steady: Vec<SteadySession>,
}

/// How long something took, in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Latency {
    /// How many were measured; the rest is 0 without any.
    pub count: usize,
    pub p50_ms: f64,
    /// 99 % took at most so long.
    pub p99_ms: f64,
    pub max_ms: f64,
}

/// A session of an idle client, a listener, a lock holder, or a holder of a transaction.
#[derive(Clone, Debug, Serialize)]
pub struct SteadySession {
    /// [`Work::word`](super::Work::word).
    pub work: &'static str,
    /// The client's number in this load.
    pub client: u32,
    /// The server's process or connection number for it.
    pub backend: u64,
    /// When it was dialled.
    pub opened_s: f64,
    /// When the COMMIT of a holder was acknowledged.
    pub committed_s: Option<f64>,
    /// When its client saw it closed from outside; `None` while it is open.
    pub closed_s: Option<f64>,
    /// How the client saw that.
    pub ending: Option<Ending>,
    /// A holder that was cut between BEGIN and the answer to COMMIT.
    pub in_transaction: bool,
}

impl LoadReport {
    pub(super) fn of(tally: &Tally) -> Self {
        let relogins: Vec<Login> = tally.logins.iter().copied().filter(|login| !login.first).collect();
        let count = |length: usize| u64::try_from(length).unwrap_or(u64::MAX);
        Self {
            seconds: tally.began.elapsed().as_secs_f64(),
            clients: tally.clients,
            transactions: tally.transactions,
            ended_unprepared: tally.unprepared,
            clean_retirements: tally.clean,
            begins_retried: tally.retried,
            broken_at_begin: tally.at_begin,
            broken_inside: tally.inside,
            broken_at_commit: tally.at_commit,
            rows_inserted: tally.inserted,
            rows_clean_retirements: tally.clean_before_insert,
            rows_failed: count(tally.unsure_rows.len()),
            steady_closed: tally.steady_closed,
            logins: count(tally.logins.len()),
            failed_logins: tally.failed_logins,
            max_logins_per_s: busiest_second(&tally.logins),
            max_relogins_per_s: busiest_second(&relogins),
            connect: Latency::of(tally.logins.iter().map(|login| login.took)),
            transaction: Latency::of(tally.waits.iter().copied()),
            causes: tally.causes.clone(),
            steady: tally.steady.clone(),
        }
    }

    /// Closes that clients with transactions met, well or ill.
    pub fn retirements(&self) -> u64 {
        self.clean_retirements
            + self.begins_retried
            + self.broken_at_begin
            + self.broken_inside
            + self.broken_at_commit
    }

    /// At BEGIN, of all [`retirements`](Self::retirements).
    pub fn rate_at_begin(&self) -> Interval {
        Interval::of(self.broken_at_begin, self.retirements())
    }

    /// Inside a transaction, of all [`retirements`](Self::retirements).
    pub fn rate_inside(&self) -> Interval {
        Interval::of(self.broken_inside, self.retirements())
    }

    /// At COMMIT, of all [`retirements`](Self::retirements).
    pub fn rate_at_commit(&self) -> Interval {
        Interval::of(self.broken_at_commit, self.retirements())
    }

    /// Failed INSERTs, of all closes that clients in autocommit met.
    pub fn rate_of_failed_rows(&self) -> Interval {
        Interval::of(self.rows_failed, self.rows_failed + self.rows_clean_retirements)
    }
}

impl Latency {
    fn of(durations: impl Iterator<Item = Duration>) -> Self {
        let mut sorted: Vec<f64> = durations.map(|duration| duration.as_secs_f64() * 1000.0).collect();
        sorted.sort_by(f64::total_cmp);
        // Nearest rank, counted from the top: p99 of 200 is the third largest.
        let rank = |percent: usize| {
            let above = sorted.len() * (100 - percent) / 100;
            sorted.iter().rev().nth(above).copied().unwrap_or_default()
        };
        Self { count: sorted.len(), p50_ms: rank(50), p99_ms: rank(99), max_ms: rank(100) }
    }
}

/// The most logins within any one second.
fn busiest_second(logins: &[Login]) -> u64 {
    let mut times: Vec<Duration> = logins.iter().map(|login| login.at).collect();
    times.sort();
    let mut from = times.iter().enumerate().peekable();
    let mut most = 0;
    for (position, at) in times.iter().enumerate() {
        while from.next_if(|(_, earlier)| **earlier + Duration::from_secs(1) <= *at).is_some() {}
        let first = from.peek().map_or(position, |(first, _)| *first);
        most = most.max(position - first + 1);
    }
    u64::try_from(most).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn logins(times_ms: &[u64]) -> Vec<Login> {
        let login = |ms: &u64| Login { at: Duration::from_millis(*ms), took: Duration::ZERO, first: false };
        times_ms.iter().map(login).collect()
    }

    #[test]
    fn the_busiest_second_begins_anywhere() {
        assert_eq!(busiest_second(&[]), 0);
        assert_eq!(busiest_second(&logins(&[0, 900, 950, 1000, 1850, 1899, 1900])), 5);
        assert_eq!(busiest_second(&logins(&[0, 1000, 2000])), 1, "a second later is another second");
        assert_eq!(busiest_second(&logins(&[2000, 10, 1005])), 2, "in any order");
    }

    #[test]
    fn latencies_are_the_nearest_measured_ones() {
        let all = Latency::of((1..=200).map(Duration::from_millis));
        assert_eq!((all.count, all.p50_ms, all.p99_ms, all.max_ms), (200, 100.0, 198.0, 200.0));
        assert_eq!(Latency::of(std::iter::empty()), Latency::default());
    }
}
