//! Many failures of one kind are one report. The first few are reported at once, each by itself; those that follow are counted and
//! reported together, at growing intervals while they go on.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
    time::Duration,
};

use super::{Certainty, Failure, Phase};
use crate::Time;

/// Failures of one kind that are reported each by itself, before they are counted.
const EACH: u64 = 5;

/// The time until the first report of those that are counted.
const FIRST: Duration = Duration::from_secs(10);

/// The longest time between two reports of failures that go on.
const LONGEST: Duration = Duration::from_secs(60);

/// Suspected failures alone are reported only if there are this many within [`LONGEST`].
const SUSPICIOUS: u64 = 10;

/// Kinds that are followed. Configured servers have far fewer; more are not reported apart.
const KINDS: usize = 512;

/// Different clients that are counted of one kind.
const CLIENTS: usize = 1_000;

type Kind = (Arc<str>, Arc<str>, Arc<str>, Phase, bool);

#[derive(Debug, Default)]
pub struct Collapse {
    kinds: BTreeMap<Kind, Window>,
}

#[derive(Debug)]
struct Window {
    since: Time,
    lasts: Duration,
    /// Reported each by itself.
    each: u64,
    /// Counted since.
    count: u64,
    clients: BTreeSet<IpAddr>,
    last: Failure,
}

/// What to do with a failure.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum News {
    /// Report it.
    Each,
    /// It is counted, and reported with others.
    Counted,
}

/// Failures of one kind in one interval.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Many {
    /// The last of them.
    pub last: Failure,
    /// How many, without those that were reported each by itself.
    pub count: u64,
    /// Their clients, by address; counted up to 1,000.
    pub clients: usize,
    pub over: Duration,
}

impl Collapse {
    pub fn observe(&mut self, now: Time, failure: &Failure) -> News {
        let suspected = failure.certainty == Certainty::Suspected;
        let kind = (
            failure.proxy.clone(),
            Arc::from(failure.backend_label()),
            Arc::from(failure.server_label()),
            failure.phase,
            suspected,
        );
        if let Some(window) = self.kinds.get_mut(&kind) {
            if !suspected && window.each < EACH {
                window.each += 1;
                return News::Each;
            }
            window.count += 1;
            window.add(failure);
            window.last = failure.clone();
            return News::Counted;
        }
        if self.kinds.len() >= KINDS {
            return News::Counted;
        }
        let mut window = Window {
            since: now,
            lasts: if suspected { LONGEST } else { FIRST },
            each: 1,
            count: u64::from(suspected),
            clients: BTreeSet::new(),
            last: failure.clone(),
        };
        if suspected {
            window.add(failure);
        }
        self.kinds.insert(kind, window);
        if suspected { News::Counted } else { News::Each }
    }

    /// The intervals that are over. A kind without failures in its last interval is forgotten.
    pub fn due(&mut self, now: Time) -> Vec<Many> {
        let mut due = Vec::new();
        self.kinds.retain(|(.., suspected), window| {
            let over = now.since(window.since);
            if over < window.lasts {
                return true;
            }
            if window.count == 0 {
                return false;
            }
            if !*suspected || window.count >= SUSPICIOUS {
                let (last, count) = (window.last.clone(), window.count);
                due.push(Many { last, count, clients: window.clients.len(), over });
            }
            window.since = now;
            window.lasts = (window.lasts * 2).min(LONGEST);
            window.count = 0;
            window.clients.clear();
            true
        });
        due
    }
}

impl Window {
    fn add(&mut self, failure: &Failure) {
        if let Some(source) = failure.source
            && self.clients.len() < CLIENTS
        {
            self.clients.insert(source.ip());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use super::*;

    fn failure(server: &str, certainty: Certainty) -> Failure {
        Failure {
            proxy: "proxy".into(),
            backend: "w".into(),
            configured: true,
            server: Some(server.into()),
            database: None,
            instance: Some(crate::InstanceId::new("orders", server)),
            source: Some(([10, 0, 0, 1], 1).into()),
            outgoing: None,
            phase: Phase::ConnectRefused,
            certainty,
            state: Cow::Borrowed("SC"),
            meaning: Cow::Borrowed(""),
            lasted: Duration::ZERO,
            connected: None,
            retries: None,
            from_client: None,
            to_client: None,
            error: None,
        }
    }

    fn counts(collapse: &mut Collapse, now: Time) -> Vec<u64> {
        collapse.due(now).iter().map(|many| many.count).collect()
    }

    #[test]
    fn the_first_few_are_news_and_the_others_are_reported_together_ever_more_rarely() {
        let (mut collapse, mut now) = (Collapse::default(), Time::AGENT_START);
        let one = failure("a", Certainty::Certain);
        for _ in 0..EACH {
            assert_eq!(collapse.observe(now, &one), News::Each);
        }
        let mut reports = Vec::new();
        for second in 1..=300_u64 {
            now = now + Duration::from_secs(1);
            assert_eq!(collapse.observe(now, &one), News::Counted);
            if let [count] = counts(&mut collapse, now)[..] {
                reports.push((second, count));
            }
        }
        assert_eq!(reports, [(10, 10), (30, 20), (70, 40), (130, 60), (190, 60), (250, 60)]);
        // An interval without one ends it: the next is news again.
        now = now + LONGEST;
        assert_eq!(counts(&mut collapse, now), [50]);
        now = now + LONGEST;
        assert_eq!(counts(&mut collapse, now), [0_u64; 0]);
        assert_eq!(collapse.observe(now, &one), News::Each);
    }

    #[test]
    fn suspicions_are_reported_only_if_there_are_many() {
        let (mut collapse, now) = (Collapse::default(), Time::AGENT_START);
        let one = failure("a", Certainty::Suspected);
        for _ in 1..SUSPICIOUS {
            assert_eq!(collapse.observe(now, &one), News::Counted);
        }
        assert_eq!(counts(&mut collapse, now + LONGEST), [0_u64; 0]);
        for _ in 0..SUSPICIOUS {
            collapse.observe(now + LONGEST, &one);
        }
        assert_eq!(counts(&mut collapse, now + LONGEST * 2), [SUSPICIOUS]);
    }

    #[test]
    fn kinds_are_bounded() {
        let (mut collapse, now) = (Collapse::default(), Time::AGENT_START);
        let news = (0..5_000).filter(|number| {
            collapse.observe(now, &failure(&format!("s{number}"), Certainty::Certain)) == News::Each
        });
        assert_eq!(news.count(), KINDS);
        assert_eq!(collapse.kinds.len(), KINDS);
    }
}
