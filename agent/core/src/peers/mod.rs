//! Peers: other agents of the same database, each beside a proxy of its own.
//!
//! Agents meet in the database itself. Each holds locks there in the session in which it reads the connection
//! table: PostgreSQL's advisory locks, user locks (`GET_LOCK`) of MySQL and MariaDB. They end with their session,
//! so a killed agent leaves none. Locks of another database user are not believed.
//!
//! - [`Marks`]: what an agent shows its peers on an instance.
//! - [`Look`]: what one reading of the locks shows.
//! - [`Turn`]: how many of the login budget's shared permits an agent holds.
//! - [`Peers`]: the last look at each instance, and what follows for drains and for the writer.

mod turn;

use std::{collections::BTreeMap, time::Duration};

use serde::Serialize;

pub use turn::{Turn, shared_permits};

use crate::{DatabaseName, Fault, InstanceId, InstanceName, Time, freshness::SOURCE_LOST};

/// What an agent shows its peers on an instance.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Marks {
    /// It takes the instance for the writer of its database.
    pub writer: bool,
    /// An operator has named the instance as the writer.
    pub word: bool,
    /// It drains a server of the instance, or is about to.
    pub drain: bool,
    /// It wants a shared permit and has none.
    pub waits: bool,
}

/// The locks that an agent wants to hold on an instance.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub struct Wish {
    pub marks: Marks,
    /// Shared permits.
    pub permits: u32,
    /// There are so many of them, numbered from 0.
    pub of: u32,
    /// The number that is tried first. It is random, so that agents do not try the same ones.
    pub first: u32,
}

/// What the locks on an instance show.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Look {
    /// This agent's marks.
    pub own: Marks,
    /// Shared permits of this agent.
    pub permits: u32,
    /// Other agents.
    pub peers: u32,
    /// How many of them drain the instance.
    pub drains: u32,
    /// How many of them take it for the writer.
    pub writers: u32,
    /// How many of them an operator has given its name as the writer.
    pub words: u32,
    /// How many of them wait for a shared permit.
    pub waiting: u32,
    /// Locks with the agents' names that another database user holds.
    pub foreign: u32,
    /// Agents that are connected to another database of the same server (PostgreSQL), where locks exclude
    /// nobody here.
    pub apart: u32,
}

/// Locks are read this often while a peer may depend on it. The interval grows with the number of agents, so
/// that all of them together read at most about 20 times a second.
const LOOK: Duration = Duration::from_secs(1);
const LOOK_EACH: Duration = Duration::from_millis(50);

/// While an agent holds permits or drains a server, peers wait for what it sees.
const LOOK_BUSY: Duration = Duration::from_secs(2);

/// Between two tries to get a permit, and for each agent that may try: about 50 tries a second together.
const TRY: Duration = Duration::from_millis(300);
const TRY_EACH: Duration = Duration::from_millis(20);

/// An agent that sees the mark of an earlier drain takes its own back within this: one look of each.
const GIVES_WAY: Duration = Duration::from_secs(5);

impl Look {
    /// The time until the next look.
    pub fn interval(&self) -> Duration {
        let scaled = LOOK.max(LOOK_EACH * (self.peers + 1));
        if self.permits > 0 || self.own.drain { scaled.min(LOOK_BUSY) } else { scaled }
    }

    /// The time until the next try to get a permit.
    pub fn retry(&self) -> Duration {
        TRY.max(TRY_EACH * (self.peers + 1))
    }
}

/// The last look at one instance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Seen {
    /// When the locks were asked for.
    pub asked: Time,
    /// When the answer was there.
    pub at: Time,
    pub look: Look,
}

/// The last look at each instance.
#[derive(Clone, Debug, Default)]
pub struct Peers {
    seen: BTreeMap<InstanceId, Seen>,
    /// Since when each look at an instance has shown a drain of a peer.
    drained_since: BTreeMap<InstanceId, Time>,
    /// Why the locks of an instance cannot be read; its session may have ended.
    lost: BTreeMap<InstanceId, Fault>,
}

/// Whether a drain of an instance may begin, as far as peers are concerned.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Agreement {
    /// Its mark is set, and was before the siblings were looked at.
    Given,
    /// The mark is not set yet, or a sibling was not looked at since.
    Awaited,
    /// An instance has not been looked at yet.
    Unseen,
    /// The session with an instance has ended, or its locks cannot be read.
    Lost,
}

impl Peers {
    /// The locks of an instance, asked for at `asked` and read at `at`; or why they could not be.
    pub fn observe(&mut self, instance: &InstanceId, asked: Time, at: Time, look: Result<Look, Fault>) {
        match look {
            Ok(look) => {
                self.lost.remove(instance);
                if look.drains > 0 {
                    self.drained_since.entry(instance.clone()).or_insert(at);
                } else {
                    self.drained_since.remove(instance);
                }
                self.seen.insert(instance.clone(), Seen { asked, at, look });
            }
            Err(fault) => {
                self.seen.remove(instance);
                self.drained_since.remove(instance);
                self.lost.insert(instance.clone(), fault);
            }
        }
    }

    /// The last look at each instance.
    pub fn seen(&self) -> &BTreeMap<InstanceId, Seen> {
        &self.seen
    }

    /// Why the locks of an instance cannot be read.
    pub fn lost(&self) -> &BTreeMap<InstanceId, Fault> {
        &self.lost
    }

    /// The last look at an instance. An old one is as good as none where peers may have changed something since.
    pub fn look(&self, instance: &InstanceId) -> Option<&Look> {
        self.seen.get(instance).map(|seen| &seen.look)
    }

    /// Whether peers drain an instance or are about to, by the last look.
    pub fn drained(&self, instance: &InstanceId) -> bool {
        self.look(instance).is_some_and(|look| look.drains > 0)
    }

    /// Whether peers drain an instance and do not give way to an earlier drain.
    pub fn drained_lastingly(&self, instance: &InstanceId, now: Time) -> bool {
        self.drained_since.get(instance).is_some_and(|since| now.since(*since) >= GIVES_WAY)
    }

    /// Whether the agent holds its mark on an instance that it drains.
    pub fn marked(&self, instance: &InstanceId, now: Time) -> bool {
        let seen = self.seen.get(instance);
        seen.is_some_and(|seen| seen.look.own.drain && now.since(seen.at) <= SOURCE_LOST)
    }

    /// Whether the mark on `instance` was set before each of its siblings was looked at. Two agents that drain
    /// different instances each set their mark before they look for the other's, so at least one of them sees
    /// it. `siblings` are those whose sessions the drain would need.
    pub fn agreement<'a>(
        &self,
        instance: &InstanceId,
        siblings: impl Iterator<Item = &'a InstanceId>,
        wanted_since: Time,
    ) -> Agreement {
        let unseen =
            |id: &InstanceId| if self.lost.contains_key(id) { Agreement::Lost } else { Agreement::Unseen };
        let Some(own) = self.seen.get(instance) else { return unseen(instance) };
        if !own.look.own.drain || own.asked < wanted_since {
            return Agreement::Awaited;
        }
        let mut agreement = Agreement::Given;
        for sibling in siblings {
            match self.seen.get(sibling) {
                Some(seen) if seen.asked >= own.at => {}
                Some(_) => agreement = Agreement::Awaited,
                None => return unseen(sibling),
            }
        }
        agreement
    }

    /// The instances of a database that peers take for the writer, with their number.
    pub fn writers(&self, database: &DatabaseName) -> BTreeMap<InstanceName, u32> {
        let seen = self.seen.iter().filter(|(id, _)| id.database == *database);
        let marked = seen.filter(|(_, seen)| seen.look.writers > 0);
        marked.map(|(id, seen)| (id.instance.clone(), seen.look.writers)).collect()
    }

    /// The one instance of a database that an operator has named to a peer. Two names decide nothing.
    pub fn word(&self, database: &DatabaseName) -> Option<&InstanceId> {
        let mut named = self.seen.iter().filter(|(id, seen)| id.database == *database && seen.look.words > 0);
        match (named.next(), named.next()) {
            (Some((id, _)), None) => Some(id),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{FaultKind, Phase};

    fn id(name: &str) -> InstanceId {
        InstanceId::new("orders", name)
    }

    fn at(ms: u64) -> Time {
        Time::since_start(Duration::from_millis(ms))
    }

    fn marked() -> Look {
        Look { own: Marks { drain: true, ..Marks::default() }, ..Look::default() }
    }

    #[test]
    fn a_drain_is_agreed_on_only_after_siblings_were_looked_at_with_the_mark_set() {
        let mut peers = Peers::default();
        let (a, b) = (id("a"), id("b"));
        let agreement = |peers: &Peers| peers.agreement(&a, [&b].into_iter(), at(100));
        assert_eq!(agreement(&peers), Agreement::Unseen);
        peers.observe(&a, at(90), at(95), Ok(marked()));
        peers.observe(&b, at(90), at(95), Ok(Look::default()));
        assert_eq!(agreement(&peers), Agreement::Awaited, "the mark may be of an earlier drain");
        peers.observe(&a, at(110), at(120), Ok(marked()));
        peers.observe(&b, at(119), at(125), Ok(Look::default()));
        assert_eq!(agreement(&peers), Agreement::Awaited, "the sibling was asked before the mark was set");
        peers.observe(&b, at(120), at(130), Ok(Look::default()));
        assert_eq!(agreement(&peers), Agreement::Given);
        let fault = Fault::new(Phase::Query, FaultKind::Disconnected, "made up");
        peers.observe(&b, at(140), at(140), Err(fault));
        assert_eq!(agreement(&peers), Agreement::Lost);
    }

    #[test]
    fn an_operators_word_counts_only_while_it_names_one_instance() {
        let mut peers = Peers::default();
        let said = Look { words: 1, ..Look::default() };
        peers.observe(&id("a"), at(0), at(0), Ok(Look::default()));
        assert_eq!(peers.word(&"orders".into()), None);
        peers.observe(&id("b"), at(0), at(0), Ok(said));
        assert_eq!(peers.word(&"orders".into()), Some(&id("b")));
        assert_eq!(peers.word(&"other".into()), None);
        peers.observe(&id("a"), at(0), at(0), Ok(said));
        assert_eq!(peers.word(&"orders".into()), None);
    }

    #[test]
    fn all_agents_together_look_at_a_bounded_rate() {
        for peers in [0_u32, 1, 19, 100, 999] {
            let look = Look { peers, ..Look::default() };
            let rate = f64::from(peers + 1) / look.interval().as_secs_f64();
            assert!(rate <= 20.1, "{peers}: {rate}");
            assert!(f64::from(peers + 1) / look.retry().as_secs_f64() <= 50.1);
        }
        let busy = Look { peers: 999, permits: 1, ..Look::default() };
        assert_eq!(busy.interval(), LOOK_BUSY);
    }
}
