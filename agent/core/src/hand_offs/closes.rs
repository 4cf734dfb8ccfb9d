//! Sessions that the agent closes, so that their end is no failure. They are noted before the close begins: the proxy logs
//! the end before the agent learns the outcome.

use std::{
    collections::{HashMap, VecDeque},
    net::SocketAddr,
    time::Duration,
};

use crate::{Time, session::ProxySession};

/// How long a close is awaited. A catch waits for its session to become idle.
const BEGUN: Duration = Duration::from_secs(600);

/// How long after a close the log line may come: a client may keep its side open.
const CLOSED: Duration = Duration::from_secs(60);

/// Addresses that are kept. Two for each close, and closes are limited by budgets far below.
const MOST: usize = 20_000;

#[derive(Debug, Default)]
pub struct Closes {
    /// Until when the end of the session with this address is the agent's, and whether its close has ended.
    until: HashMap<SocketAddr, (Time, bool)>,
    /// In the order in which they were noted, for the bound.
    order: VecDeque<SocketAddr>,
}

impl Closes {
    /// The agent begins to close a session.
    pub fn begins(&mut self, session: &ProxySession, now: Time) {
        for address in addresses(session) {
            if self.until.insert(address, (now + BEGUN, false)).is_none() {
                self.order.push_back(address);
            }
        }
        while self.order.len() > MOST {
            if let Some(oldest) = self.order.pop_front() {
                self.until.remove(&oldest);
            }
        }
    }

    /// The close has ended; `closed` says whether it closed the session.
    pub fn ends(&mut self, session: &ProxySession, closed: bool, now: Time) {
        for address in addresses(session) {
            if closed {
                if let Some(until) = self.until.get_mut(&address) {
                    *until = (now + CLOSED, true);
                }
            } else if self.until.get(&address).is_some_and(|(_, ended)| !ended) {
                // An earlier close that was done stays noted.
                self.until.remove(&address);
            }
        }
        // What is removed above stays in the order until it is its turn.
        while self.order.front().is_some_and(|first| !self.until.contains_key(first)) {
            self.order.pop_front();
        }
    }

    /// Whether the agent closed the session with these addresses. The proxy's own address identifies it; the
    /// client's counts where the log has no other.
    pub fn is_own(&self, source: Option<SocketAddr>, outgoing: Option<SocketAddr>, now: Time) -> bool {
        let own = |address: SocketAddr| self.until.get(&address).is_some_and(|(until, _)| now <= *until);
        outgoing.or(source).is_some_and(own)
    }
}

fn addresses(session: &ProxySession) -> impl Iterator<Item = SocketAddr> {
    [Some(session.outgoing), session.source].into_iter().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ProxyIndex, ServerId, session::ProxySessionKey};

    fn session(port: u16) -> ProxySession {
        ProxySession {
            key: ProxySessionKey::Envoy("x".into()),
            server: ServerId::new(ProxyIndex(0), "w", "a"),
            source: Some(([10, 0, 0, 1], port).into()),
            outgoing: ([10, 0, 0, 2], port).into(),
            peer: ([10, 0, 0, 3], 5432).into(),
            age: Duration::ZERO,
            old_worker: false,
        }
    }

    #[test]
    fn the_end_of_a_session_is_the_agents_from_the_begin_of_its_close_on() {
        let mut closes = Closes::default();
        let (now, one) = (Time::AGENT_START, session(1));
        let own = |closes: &Closes, at: Time| closes.is_own(one.source, Some(one.outgoing), at);
        assert!(!own(&closes, now));
        closes.begins(&one, now);
        assert!(own(&closes, now) && closes.is_own(one.source, None, now));
        assert!(
            !closes.is_own(one.source, Some(([9, 9, 9, 9], 1).into()), now),
            "the proxy's address decides"
        );
        closes.ends(&one, true, now);
        closes.ends(&one, false, now);
        assert!(own(&closes, now + CLOSED) && !own(&closes, now + CLOSED + Duration::from_secs(1)));
    }

    #[test]
    fn a_close_that_did_nothing_is_forgotten() {
        let mut closes = Closes::default();
        let (now, one) = (Time::AGENT_START, session(1));
        closes.begins(&one, now);
        closes.ends(&one, false, now);
        assert!(!closes.is_own(one.source, Some(one.outgoing), now));
        assert!(closes.order.is_empty());
    }

    #[test]
    fn they_are_bounded() {
        let mut closes = Closes::default();
        (1..=u16::MAX).for_each(|port| closes.begins(&session(port), Time::AGENT_START));
        assert!(closes.until.len() <= MOST && closes.order.len() <= MOST);
    }
}
