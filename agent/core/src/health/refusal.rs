//! Whether an instance that refuses the agent refuses clients too, by the proxies' own counters.
//!
//! The agent's path is not the proxy's: a security group, a route or a firewall of its own host may refuse
//! the agent alone. Not here: what follows for a server, which is `judge`'s.

use std::{collections::VecDeque, time::Duration};

use serde::Serialize;

use crate::Time;

/// HAProxy waits one second between two tries and counts a refused try after it. So a try that is
/// older than this has failed in the counters, or has not failed. The rest is for the answer to arrive in.
const SETTLES: Duration = Duration::from_millis(1_200);

/// Counters are compared over this long: enough for tries to settle, and short enough that a server
/// which stops to serve is not taken for one that serves.
const WINDOW: Duration = Duration::from_secs(3);

/// A proxy's counters of connections to one server, since it started.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub struct Connects {
    /// Tries, each one counted.
    pub begun: u64,
    /// Tries that were refused or timed out.
    pub failed: u64,
    /// Sessions that clients gave up, possibly while they waited for the next try.
    pub aborted: u64,
}

/// What the proxies show of an instance that refuses the agent.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Refusal {
    /// No proxy's counters can be read: the agent's word is all there is.
    Unseen,
    /// No client has tried since, or none of the tries has ended.
    Unconfirmed,
    /// Sessions of clients began since: the agent alone is refused.
    ServedForClients,
    /// Clients are refused too, or the server itself has said that it stops or starts.
    Confirmed,
}

/// What became of the tries of clients.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) enum Tries {
    Served,
    Failed,
}

/// The counters of one server over the last seconds.
#[derive(Clone, Debug, Default)]
pub(super) struct ConnectHistory {
    looks: VecDeque<(Time, Connects)>,
}

impl ConnectHistory {
    /// Takes in one look at the counters, asked for at `at` and answered within a tenth of a second.
    pub(super) fn observe(&mut self, at: Time, connects: Connects) {
        // A proxy that was restarted or reloaded counts from zero.
        let restarted = self.looks.back().is_some_and(|(_, last)| {
            connects.begun < last.begun || connects.failed < last.failed || connects.aborted < last.aborted
        });
        if restarted {
            self.looks.clear();
        }
        self.looks.push_back((at, connects));
        while self.looks.front().is_some_and(|(first, _)| at.since(*first) > WINDOW) {
            self.looks.pop_front();
        }
    }

    /// When the counters were last read.
    pub(super) fn latest(&self) -> Option<Time> {
        self.looks.back().map(|(at, _)| *at)
    }

    /// What became of the tries that began after `since`, if that is known of any.
    ///
    /// Every failure and every aborted session counts against these tries, also those of other tries. So `Served` is certain.
    pub(super) fn tries(&self, since: Time) -> Option<Tries> {
        let looks = self.looks.iter().filter(|(at, _)| *at >= since);
        let (_, first) = looks.clone().next()?;
        let (now, last) = self.looks.back()?;
        let settled = looks.take_while(|(at, _)| now.since(*at) >= SETTLES).last();
        let begun = settled.map_or(0, |(_, settled)| settled.begun - first.begun);
        let failed = last.failed - first.failed;
        if begun > failed + (last.aborted - first.aborted) {
            Some(Tries::Served)
        } else {
            (failed > 0).then_some(Tries::Failed)
        }
    }
}

impl Refusal {
    /// The next state, from the last one and the counters.
    pub(super) fn next(before: Option<Self>, readable: bool, tries: Option<Tries>) -> Self {
        match (tries, before) {
            (Some(Tries::Served), _) => Self::ServedForClients,
            (Some(Tries::Failed), _) | (_, Some(Self::Confirmed)) => Self::Confirmed,
            (None, Some(Self::ServedForClients)) => Self::ServedForClients,
            (None, _) if readable => Self::Unconfirmed,
            (None, _) => Self::Unseen,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Looks every half second from `AGENT_START` on.
    fn history(looks: &[(u64, u64, u64)]) -> ConnectHistory {
        let mut history = ConnectHistory::default();
        for (number, (begun, failed, aborted)) in (0..).zip(looks) {
            let connects = Connects { begun: *begun, failed: *failed, aborted: *aborted };
            history.observe(Time::AGENT_START + Duration::from_millis(500) * number, connects);
        }
        history
    }

    fn tries(looks: &[(u64, u64, u64)]) -> Option<Tries> {
        history(looks).tries(Time::AGENT_START)
    }

    #[test]
    fn a_try_that_has_not_failed_within_its_second_was_served() {
        assert_eq!(tries(&[(7, 2, 0), (8, 2, 0), (8, 2, 0), (8, 2, 0)]), None, "it may be waiting");
        assert_eq!(tries(&[(7, 2, 0), (8, 2, 0), (8, 2, 0), (8, 2, 0), (8, 2, 0)]), Some(Tries::Served));
    }

    #[test]
    fn a_try_that_failed_or_was_given_up_was_not_served() {
        assert_eq!(tries(&[(7, 2, 0), (8, 2, 0), (8, 2, 0), (9, 3, 0), (9, 3, 0)]), Some(Tries::Failed));
        assert_eq!(tries(&[(7, 2, 0), (8, 2, 0), (8, 2, 1), (8, 2, 1), (8, 2, 1)]), None);
    }

    #[test]
    fn tries_before_the_refusal_prove_nothing() {
        let looks = [(7, 2, 0), (9, 2, 0), (9, 2, 0), (9, 2, 0), (9, 2, 0), (9, 2, 0), (9, 2, 0)];
        let refused = Time::AGENT_START + Duration::from_millis(300);
        assert_eq!(history(&looks).tries(refused), None);
    }

    #[test]
    fn counters_that_begin_anew_are_not_compared_with_older_ones() {
        assert_eq!(tries(&[(7, 2, 0), (1, 0, 0), (1, 0, 0), (1, 0, 0), (1, 0, 0)]), None);
    }

    #[test]
    fn a_server_that_served_and_then_refuses_everybody_is_seen_to_do_so() {
        let served = [(0, 0, 0), (5, 0, 0), (10, 0, 0), (15, 0, 0), (20, 0, 0)];
        let refused =
            [(25, 0, 0), (30, 5, 0), (35, 10, 0), (40, 15, 0), (45, 20, 0), (50, 25, 0), (55, 30, 0)];
        let looks = [served.as_slice(), refused.as_slice()].concat();
        assert_eq!(tries(&looks[..5]), Some(Tries::Served));
        assert_eq!(tries(&looks), Some(Tries::Failed));
    }
}
