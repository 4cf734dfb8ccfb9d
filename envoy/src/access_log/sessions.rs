//! The live sessions of all Envoys that send their access log.
//!
//! A log is not a list. But every live session has an entry in each periodic interval, so the table is complete
//! after one interval without a broken stream ([`sweep`](Sessions::sweep)). Until then it has the sessions
//! that were logged since ([`certain`](Sessions::certain)). Entries may come twice and out of order.
//!
//! Pure: time is an argument. Clusters and addresses are as Envoy has them.

use std::{
    collections::{BTreeMap, HashMap, HashSet, VecDeque, hash_map},
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

use tokio::time::Instant;

use super::{Event, Kind, Origin};

/// Limits of the table.
#[derive(Copy, Clone, Debug)]
pub struct Limits {
    /// Envoy's `access_log_flush_interval`.
    pub interval: Duration,
    /// A session without an entry for this many intervals is removed.
    pub misses: u32,
    /// The most sessions, of all Envoys together.
    pub sessions: usize,
    /// The most Envoys, connected and recently disconnected ones.
    pub origins: usize,
    /// Whether all Envoys share this host's clock. Otherwise a session has no age until an entry has shown
    /// the difference of the clocks.
    pub same_clock: bool,
}

impl Default for Limits {
    /// The shipped configuration's interval; as many sessions as the ledger keeps.
    fn default() -> Self {
        Self {
            interval: Duration::from_secs(10),
            misses: 3,
            sessions: 100_000,
            origins: 1_024,
            same_clock: true,
        }
    }
}

impl Limits {
    /// An interval, and time for its last entries to arrive.
    fn round(&self) -> Duration {
        self.interval + (self.interval / 4).clamp(Duration::from_millis(250), Duration::from_secs(5))
    }

    fn patience(&self) -> Duration {
        self.round() * self.misses.max(1)
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    pub id: Arc<str>,
    /// When the client was accepted: Unix time by the clock of Envoy's host. For display and identity, not
    /// for ages.
    pub started: Duration,
    /// Since the client was accepted.
    pub age: Duration,
    /// The client's address; `None` for a client on a Unix socket.
    pub source: Option<SocketAddr>,
    /// Envoy's own address and port towards the server, which the database shows.
    pub outgoing: SocketAddr,
    pub peer: SocketAddr,
    pub cluster: Arc<str>,
}

/// The effect of an event.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Taken {
    /// The session is new here.
    New,
    Known,
    Ended,
    /// The end of an unknown session, or an entry after the end.
    Ignored,
    /// The table is full.
    Dropped,
}

#[derive(Debug)]
pub struct Sessions {
    limits: Limits,
    nodes: BTreeMap<Origin, Node>,
    count: usize,
    ended: Ended,
    dropped: u64,
}

#[derive(Debug)]
struct Node {
    /// Open streams: one for each worker thread and access log with entries.
    streams: usize,
    /// Nothing was missed since then, as far as is known.
    unbroken: Instant,
    /// Microseconds by which its clock is behind this host's: the minimum of all entries that show when they
    /// were written.
    behind: Option<i128>,
    /// When the last entry arrived.
    heard: Instant,
    sessions: HashMap<Arc<str>, Entry>,
    /// By address and port of both ends: a new session on the same pair means that the old one has ended.
    ports: HashMap<(SocketAddr, SocketAddr), Arc<str>>,
}

#[derive(Debug)]
struct Entry {
    started: Duration,
    /// When the client was accepted.
    begin: Instant,
    /// Whether `begin` is final: it was determined with one clock, so a later change of that clock does not
    /// count.
    dated: bool,
    /// Whether the difference of the clocks was known at the last entry.
    comparable: bool,
    seen: Instant,
    source: Option<SocketAddr>,
    outgoing: Option<SocketAddr>,
    peer: Option<SocketAddr>,
    cluster: Option<Arc<str>>,
}

/// Recently ended sessions, so that a late entry does not bring one back.
#[derive(Debug, Default)]
struct Ended {
    order: VecDeque<(Instant, Arc<str>)>,
    ids: HashSet<Arc<str>>,
}

impl Sessions {
    pub fn new(limits: Limits) -> Self {
        Self { limits, nodes: BTreeMap::new(), count: 0, ended: Ended::default(), dropped: 0 }
    }

    /// Follows another interval, when the Envoys' own turns out to differ.
    pub fn set_interval(&mut self, interval: Duration) {
        self.limits.interval = interval;
    }

    /// Says whether all Envoys share this host's clock.
    pub fn set_same_clock(&mut self, same: bool) {
        self.limits.same_clock = same;
    }

    /// An Envoy has opened a stream. `false` if there is no room for another Envoy.
    pub fn opened(&mut self, origin: &Origin, now: Instant) -> bool {
        let Some(known) = self.node(origin, now) else { return false };
        // The first stream: what went before it was not heard. Later ones are other
        // workers', which had nothing to say until now, or follow a close.
        if known.streams == 0 {
            (known.unbroken, known.behind) = (now, None);
        }
        known.streams += 1;
        true
    }

    /// One of an Envoy's streams is closed, and these are left: what it would have said
    /// next is missed.
    pub fn closed(&mut self, origin: &Origin, left: usize, now: Instant) {
        if let Some(node) = self.nodes.get_mut(origin) {
            (node.streams, node.unbroken) = (left, now);
        }
    }

    /// This process stood still until now, or has thrown entries away: Envoys may have
    /// dropped what they could not send.
    pub fn missed(&mut self, now: Instant) {
        for node in self.nodes.values_mut() {
            node.unbroken = now;
        }
    }

    /// Takes in what an Envoy said. `now` is when it came, and `clock` that moment by the
    /// clock of this host, since 1970.
    pub fn observe(&mut self, origin: &Origin, now: Instant, clock: Duration, event: &Event) -> Taken {
        let patience = self.limits.patience();
        self.ended.forget(now, patience, self.limits.sessions);
        if event.kind == Kind::End {
            let ended = self.nodes.get_mut(origin).is_some_and(|node| {
                node.compare(clock, event);
                node.remove(&event.id)
            });
            self.count -= usize::from(ended);
            self.ended.add(now, &event.id);
            return if ended { Taken::Ended } else { Taken::Ignored };
        }
        if self.ended.ids.contains(&event.id) {
            return Taken::Ignored;
        }
        let full = self.count >= self.limits.sessions;
        let Some(known) = self.node(origin, now) else {
            self.dropped += 1;
            return Taken::Dropped;
        };
        known.heard = known.heard.max(now);
        let new = !known.sessions.contains_key(&event.id);
        if new && full && !self.make_room(origin, now) {
            return Taken::Dropped;
        }
        let same_clock = self.limits.same_clock;
        let Some(known) = self.nodes.get_mut(origin) else { return Taken::Dropped };
        self.count += usize::from(new);
        self.count -= usize::from(known.take(now, clock, event, same_clock));
        if new { Taken::New } else { Taken::Known }
    }

    /// The live sessions of one Envoy, if the table is complete: it is connected, and its streams have not
    /// broken for a whole interval. Without sessions that are not connected to a server yet.
    pub fn sweep(&self, origin: &Origin, now: Instant) -> Option<Vec<Session>> {
        if self.complete_since(origin)? > now {
            return None;
        }
        // A session whose end was missed has no more entries, and its port may belong to another one.
        let round = self.limits.round();
        Some(self.list(origin, now, |entry| now.saturating_duration_since(entry.seen) <= round))
    }

    /// The live sessions of one Envoy with an entry since the last break: no other session can have their
    /// ports. There may be more.
    pub fn certain(&self, origin: &Origin, now: Instant) -> Vec<Session> {
        let since = self.nodes.get(origin).filter(|node| node.streams > 0).map(|node| node.unbroken);
        self.list(origin, now, |entry| since.is_some_and(|since| entry.seen >= since))
    }

    /// All known sessions of one Envoy. Some may have ended without an entry.
    pub fn sessions(&self, origin: &Origin, now: Instant) -> Vec<Session> {
        self.list(origin, now, |_| true)
    }

    fn list(&self, origin: &Origin, now: Instant, which: impl Fn(&Entry) -> bool) -> Vec<Session> {
        let known = self.nodes.get(origin).into_iter().flat_map(|node| &node.sessions);
        known.filter(|(_, entry)| which(entry)).filter_map(|(id, entry)| entry.session(id, now)).collect()
    }

    /// When the table is complete for an Envoy, which may be in the future; `None` while it is not connected.
    pub fn complete_since(&self, origin: &Origin) -> Option<Instant> {
        let node = self.nodes.get(origin)?;
        (node.streams > 0).then(|| node.unbroken + self.limits.round())
    }

    /// Connected and recently disconnected Envoys, and whether they are connected.
    pub fn origins(&self) -> impl Iterator<Item = (&Origin, bool)> {
        self.nodes.iter().map(|(origin, node)| (origin, node.streams > 0))
    }

    /// Removes sessions without entries for too long, and disconnected Envoys without sessions.
    pub fn expire(&mut self, now: Instant) {
        let patience = self.limits.patience();
        let mut count = 0;
        self.nodes.retain(|_, node| {
            let lost: Vec<Arc<str>> = node
                .sessions
                .iter()
                .filter(|(_, entry)| now.saturating_duration_since(entry.seen) > patience)
                .map(|(id, _)| id.clone())
                .collect();
            for id in lost {
                node.remove(&id);
            }
            count += node.sessions.len();
            let gone = node.streams == 0 && node.sessions.is_empty();
            !(gone && now.saturating_duration_since(node.heard) > patience)
        });
        self.count = count;
        self.ended.forget(now, patience, self.limits.sessions);
    }

    pub fn len(&self) -> usize {
        self.count
    }

    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Entries that were dropped since the start because the table was full. Their sessions are unknown.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    fn node(&mut self, origin: &Origin, now: Instant) -> Option<&mut Node> {
        let room = self.nodes.len() < self.limits.origins;
        if !room && !self.nodes.contains_key(origin) {
            // A disconnected Envoy makes room for a connected one.
            let gone = self.nodes.iter().filter(|(_, node)| node.streams == 0);
            let least = gone.min_by_key(|(_, node)| node.sessions.len()).map(|(origin, _)| origin.clone())?;
            self.count -= self.nodes.remove(&least).map_or(0, |node| node.sessions.len());
        }
        Some(self.nodes.entry(origin.clone()).or_insert_with(|| Node {
            streams: 0,
            unbroken: now,
            behind: None,
            heard: now,
            sessions: HashMap::new(),
            ports: HashMap::new(),
        }))
    }

    /// Makes room for a session of this Envoy by removing one of the largest peer: a flood takes room from
    /// itself, also under many names.
    fn make_room(&mut self, origin: &Origin, now: Instant) -> bool {
        self.dropped += 1;
        let own = self.nodes.get(origin).map_or(0, |node| node.sessions.len());
        let mut peers: HashMap<&str, usize> = HashMap::from([(&*origin.peer, 1)]);
        for (of, node) in &self.nodes {
            *peers.entry(&of.peer).or_default() += node.sessions.len();
        }
        let largest = peers.into_iter().max_by_key(|(peer, held)| (*held, *peer != &*origin.peer));
        let Some(peer) = largest.map(|(peer, _)| peer.to_owned()) else { return false };
        let of_peer = self.nodes.iter_mut().filter(|(of, _)| *of.peer == *peer);
        let most = of_peer.max_by_key(|(_, node)| node.sessions.len());
        let room = match most {
            Some((of, most)) if of.peer != origin.peer || most.sessions.len() > own + 1 => {
                most.unbroken = now;
                let victim = most.sessions.keys().next().cloned();
                victim.is_some_and(|id| most.remove(&id))
            }
            _ => {
                if let Some(node) = self.nodes.get_mut(origin) {
                    node.unbroken = now;
                }
                false
            }
        };
        self.count -= usize::from(room);
        room
    }
}

impl Node {
    /// Compares its clock with this host's if the entry shows when it was written. Entries may be late, never
    /// early.
    fn compare(&mut self, clock: Duration, event: &Event) {
        let since = match event.kind {
            Kind::Start => Some(Duration::ZERO),
            _ => event.lasted,
        };
        if let Some(written) = since.and_then(|since| event.started.checked_add(since)) {
            let behind = micros(clock) - micros(written);
            self.behind = Some(self.behind.map_or(behind, |known| known.min(behind)));
        }
    }

    /// Adds or refreshes a session. Returns whether that showed that another one has ended.
    fn take(&mut self, now: Instant, clock: Duration, event: &Event, same_clock: bool) -> bool {
        self.compare(clock, event);
        let behind = if same_clock { Some(0) } else { self.behind };
        let age = micros(clock) - micros(event.started) - behind.unwrap_or_default();
        let age = Duration::from_micros(u64::try_from(age).unwrap_or_default());
        let begin = now.checked_sub(age).unwrap_or(now);
        let entry = match self.sessions.entry(event.id.clone()) {
            hash_map::Entry::Occupied(entry) => entry.into_mut(),
            hash_map::Entry::Vacant(place) => place.insert(Entry {
                started: event.started,
                begin,
                dated: false,
                comparable: false,
                seen: now,
                source: None,
                outgoing: None,
                peer: None,
                cluster: None,
            }),
        };
        // A later change of the clock does not change the age.
        if !entry.dated {
            entry.begin = begin;
            entry.dated = same_clock;
            entry.comparable = behind.is_some();
        }
        entry.seen = entry.seen.max(now);
        entry.source = event.source.or(entry.source);
        entry.cluster = event.cluster.clone().or_else(|| entry.cluster.take());
        let port = entry.port();
        entry.outgoing = event.outgoing.or(entry.outgoing);
        entry.peer = event.peer.or(entry.peer);
        let now_on = entry.port();
        if now_on == port {
            return false;
        }
        port.map(|port| self.ports.remove(&port));
        let Some(now_on) = now_on else { return false };
        let before = self.ports.insert(now_on, event.id.clone());
        // The later session has the port; a late entry of the earlier one changes nothing.
        match before {
            Some(before) if before == event.id => false,
            Some(before) if self.started(&before) > Some(event.started) => {
                self.ports.insert(now_on, before);
                self.sessions.remove(&event.id).is_some()
            }
            Some(before) => self.sessions.remove(&before).is_some(),
            None => false,
        }
    }

    fn started(&self, id: &str) -> Option<Duration> {
        self.sessions.get(id).map(|entry| entry.started)
    }

    fn remove(&mut self, id: &str) -> bool {
        let Some(entry) = self.sessions.remove(id) else { return false };
        if let Some(port) = entry.port()
            && self.ports.get(&port).is_some_and(|holder| **holder == *id)
        {
            self.ports.remove(&port);
        }
        true
    }
}

impl Entry {
    fn port(&self) -> Option<(SocketAddr, SocketAddr)> {
        self.outgoing.zip(self.peer)
    }

    fn session(&self, id: &Arc<str>, now: Instant) -> Option<Session> {
        if !self.comparable {
            return None;
        }
        Some(Session {
            id: id.clone(),
            started: self.started,
            age: now.saturating_duration_since(self.begin),
            source: self.source,
            outgoing: self.outgoing?,
            peer: self.peer?,
            cluster: self.cluster.clone()?,
        })
    }
}

fn micros(duration: Duration) -> i128 {
    i128::try_from(duration.as_micros()).unwrap_or(i128::MAX)
}

impl Ended {
    fn add(&mut self, now: Instant, id: &Arc<str>) {
        if self.ids.insert(id.clone()) {
            self.order.push_back((now, id.clone()));
        }
    }

    fn forget(&mut self, now: Instant, after: Duration, most: usize) {
        while let Some((at, _)) = self.order.front()
            && (now.saturating_duration_since(*at) > after || self.order.len() > most)
        {
            if let Some((_, id)) = self.order.pop_front() {
                self.ids.remove(&id);
            }
        }
    }
}
