//! What it all came to.

use std::{collections::BTreeMap, fmt};

use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;

use super::{
    BUDGET, limit,
    picture::{Picture, SessionView},
};
use crate::{
    load::{LoadReport, Verified},
    scene::{Proxy, Scene},
    standin::busiest_second,
};

/// What the pictures of a demo showed, from first to last.
#[derive(Clone, Debug, Default)]
pub(super) struct Seen {
    oldest_free_s: f64,
    oldest_held_s: f64,
    oldest_never_quiet_s: f64,
    longest_overstay_s: f64,
    /// The age at which each session that may go now became free to go: server and pid.
    free_since: BTreeMap<(String, u64), f64>,
    holds: BTreeMap<String, u64>,
}

impl Seen {
    pub(super) fn look(&mut self, picture: &Picture) {
        self.sessions(&picture.sessions);
        for (reason, count) in picture.value("/sessions/holds").as_object().into_iter().flatten() {
            let most = self.holds.entry(reason.clone()).or_default();
            *most = (*most).max(count.as_u64().unwrap_or(0));
        }
    }

    fn sessions(&mut self, sessions: &[SessionView]) {
        let before = std::mem::take(&mut self.free_since);
        for session in sessions {
            let oldest = match session.hold.as_deref() {
                // The agent leaves it alone, for what it is doing or for what it is.
                Some("in_transaction" | "listening" | "advisory_lock") => &mut self.oldest_held_s,
                Some("never_quiet") => &mut self.oldest_never_quiet_s,
                _ if session.activity == "in_transaction" => &mut self.oldest_held_s,
                // At work, or its pauses have been too short so far: it cannot go yet.
                Some("running" | "waiting_for_quiet") => &mut self.oldest_free_s,
                _ => {
                    let key = (session.server.clone(), session.pid);
                    // One pid is another session later: that is younger.
                    let known = before.get(&key).copied().filter(|since| *since <= session.age_s);
                    let since = known.unwrap_or(session.age_s);
                    let overstay = session.age_s - since.max(session.limit_s);
                    self.longest_overstay_s = self.longest_overstay_s.max(overstay);
                    self.free_since.insert(key, since);
                    &mut self.oldest_free_s
                }
            };
            *oldest = oldest.max(session.age_s);
        }
    }
}

/// The summary, also as JSON in `target/demo/summary.json`.
#[derive(Clone, Debug, Serialize)]
pub struct Summary {
    /// Sessions that the agent closed.
    pub retired: u64,
    /// The longest time that a session stayed though it could have gone: past its limit, outside a
    /// transaction, with nothing that holds it and with pauses that are long enough.
    pub longest_overstay_s: f64,
    /// The oldest session that was not in a transaction, nor held for what it is, nor never quiet. It
    /// may have been held until a moment before.
    pub oldest_age_s: f64,
    /// The oldest session that was held in a transaction, or as listening or with a lock.
    pub oldest_held_s: f64,
    /// The oldest session of a client that never pauses for `quiet_min`.
    pub oldest_never_quiet_s: f64,
    /// The age at which the last session has to go: `max_age` and its jitter.
    pub limit_s: f64,
    /// Transactions begun by clients, and single inserts.
    pub transactions: u64,
    /// BEGIN was sent and failed.
    pub broken_at_begin: u64,
    /// Failed after BEGIN had succeeded.
    pub broken_inside: u64,
    /// COMMIT was sent and not acknowledged.
    pub broken_at_commit: u64,
    /// Single inserts that failed.
    pub rows_failed: u64,
    /// Whether the tables have exactly what was acknowledged.
    pub tables_exact: bool,
    /// The most closes and own logins of the agent on one instance in any one second.
    pub max_closes_and_own_logins_per_s: usize,
    /// What the agent was allowed of these.
    pub budget_per_s: u32,
    /// The most logins of anybody on one instance in any one second.
    pub max_logins_per_s: usize,
    /// What broke, and how often: the phase and the database's code.
    pub broken: BTreeMap<String, u64>,
    /// Every reason for which something due was left alone at some time.
    pub holds: Vec<String>,
    /// How many at most at one time, by reason.
    pub holds_count: BTreeMap<String, u64>,
}

impl Summary {
    pub(super) fn of<P: Proxy>(
        scene: &Scene<P>,
        report: &LoadReport,
        verified: &Verified,
        seen: Seen,
    ) -> Self {
        let events = scene.agent.events();
        let closes = closes(&events);
        let logins = scene.standin.journal().attempts();
        let mut own: BTreeMap<&str, Vec<Timestamp>> = BTreeMap::new();
        let mut all: BTreeMap<&str, Vec<Timestamp>> = BTreeMap::new();
        for login in &logins {
            all.entry(&login.server).or_default().push(login.at);
            if login.user.starts_with("lb_agent") {
                own.entry(&login.server).or_default().push(login.at);
            }
        }
        for (server, at) in &closes {
            own.entry(server).or_default().push(*at);
        }
        let busiest = |moments: BTreeMap<&str, Vec<Timestamp>>| {
            let each = moments.into_values().map(|mut moments| {
                moments.sort();
                busiest_second(moments)
            });
            each.max().unwrap_or(0)
        };
        Self {
            retired: closes.len() as u64,
            longest_overstay_s: seen.longest_overstay_s,
            oldest_age_s: seen.oldest_free_s,
            oldest_held_s: seen.oldest_held_s,
            oldest_never_quiet_s: seen.oldest_never_quiet_s,
            limit_s: limit().as_secs_f64(),
            transactions: report.transactions + report.rows_inserted,
            broken_at_begin: report.broken_at_begin,
            broken_inside: report.broken_inside,
            broken_at_commit: report.broken_at_commit,
            rows_failed: report.rows_failed,
            tables_exact: verified.is_exact(),
            max_closes_and_own_logins_per_s: busiest(own),
            budget_per_s: BUDGET,
            max_logins_per_s: busiest(all),
            broken: report
                .causes
                .iter()
                .filter(|(cause, _)| !cause.starts_with("clean") && !cause.starts_with("steady"))
                .map(|(cause, count)| (cause.clone(), *count))
                .collect(),
            holds: seen.holds.keys().cloned().collect(),
            holds_count: seen.holds,
        }
    }

    /// What must not be, in words: nothing, unless the agent did what it never does.
    pub fn wrong(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        if !self.tables_exact {
            wrong.push("the tables do not have exactly what was acknowledged".to_owned());
        }
        if self.broken_at_commit > 0 {
            wrong.push(format!("{} transactions were broken at COMMIT", self.broken_at_commit));
        }
        if self.max_closes_and_own_logins_per_s > self.budget_per_s as usize {
            wrong.push(format!(
                "{} closes and own logins in a second, of {}",
                self.max_closes_and_own_logins_per_s, self.budget_per_s
            ));
        }
        wrong
    }
}

/// When the agent closed sessions, by the server's name.
fn closes(events: &[Value]) -> Vec<(String, Timestamp)> {
    let closed = events.iter().filter(|event| event["message"] == "session retired");
    closed
        .filter_map(|event| {
            let instance = event["instance"].as_str()?.rsplit('/').next()?.to_owned();
            Some((instance, event["timestamp"].as_str()?.parse().ok()?))
        })
        .collect()
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "\nsummary")?;
        writeln!(f, "  sessions retired                      {}", self.retired)?;
        writeln!(f, "  limit of a session's age              {:.1} s", self.limit_s)?;
        writeln!(
            f,
            "  longest stay after it could have gone {:.1} s (past its limit, between transactions)",
            self.longest_overstay_s
        )?;
        writeln!(
            f,
            "  oldest session that is held           {:.1} s (in a transaction, listening, or with a lock)",
            self.oldest_held_s
        )?;
        writeln!(
            f,
            "  oldest session that never pauses      {:.1} s (`busy: catch` closes it)",
            self.oldest_never_quiet_s
        )?;
        writeln!(f, "  transactions                          {}", self.transactions)?;
        writeln!(
            f,
            "  broken at BEGIN / inside / at COMMIT  {} / {} / {}",
            self.broken_at_begin, self.broken_inside, self.broken_at_commit
        )?;
        for (cause, count) in &self.broken {
            writeln!(f, "    {cause}: {count}")?;
        }
        writeln!(
            f,
            "  tables have what was acknowledged     {}",
            if self.tables_exact { "exactly" } else { "NOT exactly" }
        )?;
        writeln!(
            f,
            "  closes and own logins in a second     {} of {}",
            self.max_closes_and_own_logins_per_s, self.budget_per_s
        )?;
        writeln!(f, "  logins of anybody in a second         {}", self.max_logins_per_s)?;
        let holds: Vec<String> =
            self.holds_count.iter().map(|(reason, most)| format!("{reason} ({most})")).collect();
        write!(f, "  held for (at most at one time)        {}", holds.join(", "))
    }
}

#[cfg(test)]
#[allow(clippy::float_cmp, reason = "whole numbers")]
mod tests {
    use super::*;

    fn seen(looks: &[(f64, Option<&str>)]) -> Seen {
        let mut seen = Seen::default();
        for (age_s, hold) in looks {
            seen.sessions(&[SessionView {
                server: "orders_write/a".into(),
                pid: 7,
                user: "app".into(),
                application: String::new(),
                activity: "idle".into(),
                hold: hold.map(str::to_owned),
                age_s: *age_s,
                limit_s: 15.0,
            }]);
        }
        seen
    }

    fn overstay(looks: &[(f64, Option<&str>)]) -> f64 {
        seen(looks).longest_overstay_s
    }

    #[test]
    fn a_session_that_has_just_committed_has_not_stayed_too_long() {
        let looks = [(14.0, Some("in_transaction")), (35.0, Some("in_transaction")), (35.5, None)];
        assert_eq!(overstay(&looks), 0.0);
        assert_eq!(seen(&looks).oldest_held_s, 35.0);
        assert_eq!(overstay(&[&looks[..], &[(36.0, Some("waiting_for_quiet")), (36.5, None)]].concat()), 0.0);
        assert_eq!(overstay(&[&looks[..], &[(36.5, None)]].concat()), 1.0);
    }

    #[test]
    fn a_stay_begins_at_the_limit_and_ends_with_the_session() {
        assert_eq!(overstay(&[(14.0, None), (16.0, None)]), 1.0);
        assert_eq!(
            overstay(&[(14.0, None), (16.0, Some("over_budget")), (17.0, None)]),
            2.0,
            "it could have gone"
        );
        // Another session with the same pid.
        assert_eq!(overstay(&[(16.0, None), (1.0, None), (14.0, None)]), 0.0);
    }

    fn good() -> Summary {
        Summary {
            retired: 20,
            longest_overstay_s: 0.5,
            oldest_age_s: 14.0,
            oldest_held_s: 40.0,
            oldest_never_quiet_s: 50.0,
            limit_s: 16.5,
            transactions: 3_000,
            broken_at_begin: 1,
            broken_inside: 1,
            broken_at_commit: 0,
            rows_failed: 1,
            tables_exact: true,
            max_closes_and_own_logins_per_s: 5,
            budget_per_s: 5,
            max_logins_per_s: 9,
            broken: BTreeMap::new(),
            holds: Vec::new(),
            holds_count: BTreeMap::new(),
        }
    }

    #[test]
    fn only_what_the_agent_never_does_is_wrong() {
        assert_eq!(good().wrong(), Vec::<String>::new(), "the window at BEGIN never shuts entirely");
        let bad = [
            Summary { tables_exact: false, ..good() },
            Summary { broken_at_commit: 1, ..good() },
            Summary { max_closes_and_own_logins_per_s: 6, ..good() },
        ];
        for summary in bad {
            assert_eq!(summary.wrong().len(), 1, "{summary:?}");
        }
    }
}
