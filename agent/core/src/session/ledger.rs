//! All sessions the agent knows: the database's rows, joined with the proxies'.
//!
//! A row of the database is the session; what the proxies say is a claim on its
//! address and port. The join is by equality alone, and only as good as its
//! sources are fresh: the caller that acts on it asks [`Ledger::proxy_seen`] and the
//! row's own `seen` first.

use std::{
    collections::{BTreeMap, HashMap, hash_map},
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use super::{Activity, ActivityRow, Age, BackendKey, ProxySession};
use crate::{InstanceId, ProxyIndex, ServerId, Time, freshness, health::ServerConfig};

/// How far the proxy's and the database's word on the age of one session may be
/// apart. The proxy dials the server as soon as it has accepted the client, so
/// more than this means that the two speak of different connections.
const AGE_TOLERANCE: Duration = Duration::from_secs(5);

/// A session that is seen idle at least this often is going about its work in
/// small pieces, rather than stuck in one.
const RESTLESS: Duration = Duration::from_secs(5);

/// Rows kept of one instance at most; RDS allows fewer connections on any size.
const MAX_ROWS: usize = 100_000;

/// Sessions kept of one proxy on one instance at most: as many as there can be rows.
const MAX_CLAIMS: usize = MAX_ROWS;

/// What a poll of the database covered.
#[derive(Copy, Clone, Debug)]
pub enum Seen<'a> {
    /// Every session: one that is missing has ended.
    All,
    /// These sessions only: one of them that is missing has ended.
    Only(&'a [BackendKey]),
}

/// The proxies' side of a database's row.
#[derive(Copy, Clone, Debug)]
pub enum Join<'a> {
    /// Exactly one proxy session has this address and port, and the ages agree.
    Joined(&'a ProxySession),
    /// No proxy session has it, as far as the last sweep goes.
    NotJoined,
    /// Two claim it, or the ages do not agree.
    Disagree,
}

/// A server, by its index in [`Ledger::servers`].
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct ServerIndex(usize);

impl ServerIndex {
    pub fn of<T>(self, servers: &[T]) -> Option<&T> {
        servers.get(self.0)
    }

    pub fn of_mut<T>(self, servers: &mut [T]) -> Option<&mut T> {
        servers.get_mut(self.0)
    }
}

/// One session of the ledger.
#[derive(Copy, Clone, Debug)]
pub struct Session<'a> {
    pub instance: &'a InstanceId,
    /// The database's last word on it.
    pub row: &'a ActivityRow,
    pub seen: Time,
    /// When the session began: its first age taken back from the moment it was seen. Where
    /// the database does not say, when the proxy accepted it; until that is known, the
    /// latest that it can have been.
    pub begin: Time,
    /// Whether `begin` is known, rather than only not later.
    pub dated: bool,
    /// A listing of the proxy's made before this does not speak of it.
    pub settled: Time,
    /// When it was last seen idle.
    pub last_idle: Option<Time>,
    /// Since when it has been seen idle again and again, never long out of sight of it.
    pub restless_since: Option<Time>,
    /// What the proxies say.
    pub join: Join<'a>,
    /// The server it goes through, where it is joined.
    pub server: Option<ServerIndex>,
}

/// The ledger. Observations in, sessions out.
#[derive(Debug, Default)]
pub struct Ledger {
    servers: Vec<ServerId>,
    routes: HashMap<ServerId, (ServerIndex, InstanceId)>,
    proxies: BTreeMap<ProxyIndex, ProxySource>,
    tables: BTreeMap<InstanceId, Table>,
}

#[derive(Debug, Default)]
struct ProxySource {
    swept: Option<Time>,
    alive: Option<Time>,
}

#[derive(Debug, Default)]
struct Table {
    /// Ordered, so that the same observations always give the same plan.
    rows: BTreeMap<BackendKey, Entry>,
    /// What each proxy claims, apart from the others: a new listing of one must
    /// not make forgotten what another has reported for the same port.
    claims: BTreeMap<ProxyIndex, HashMap<SocketAddr, Claim>>,
    polled: Option<Time>,
    first_polled: Option<Time>,
    /// Rows of the last full poll that found no place.
    dropped_rows: usize,
    /// Proxy sessions of the last listings that found no place.
    dropped_claims: BTreeMap<ProxyIndex, usize>,
}

#[derive(Debug)]
struct Entry {
    row: ActivityRow,
    seen: Time,
    begin: Begin,
    last_idle: Option<Time>,
    restless_since: Option<Time>,
    joint: Joint,
}

/// When a session began, as far as the database shows it.
#[derive(Copy, Clone, Debug)]
enum Begin {
    At(Time),
    /// Then or earlier: it was there when it was first seen.
    By {
        /// The latest that it can have been.
        latest: Time,
        /// When it was first seen.
        first_seen: Time,
    },
}

/// The join, found anew whenever one of its sides is: far less often than it is asked for.
#[derive(Clone, Debug)]
enum Joint {
    /// With this one, through that server, accepted then.
    With(Arc<ProxySession>, ServerIndex, Time),
    Nobody,
    Disagree,
}

#[derive(Debug)]
struct Claim {
    session: Arc<ProxySession>,
    server: ServerIndex,
    begin: Time,
    seen: Time,
    contested: bool,
}

impl Ledger {
    /// An empty ledger for these servers.
    pub fn new(servers: &[ServerConfig]) -> Self {
        let mut ledger = Self::default();
        for (index, server) in servers.iter().enumerate() {
            ledger.servers.push(server.id.clone());
            ledger.routes.insert(server.id.clone(), (ServerIndex(index), server.instance.clone()));
            ledger.tables.entry(server.instance.clone()).or_default();
            ledger.proxies.entry(server.id.proxy).or_default();
        }
        ledger
    }

    /// Takes in a complete sweep of one proxy: its sessions in all workers.
    /// `at` is when it was asked for. Sessions of servers that are not configured
    /// are ignored, and so is a sweep older than the last one.
    pub fn observe_proxy(&mut self, proxy: ProxyIndex, at: Time, sessions: Vec<ProxySession>) {
        let source = self.proxies.entry(proxy).or_default();
        if source.swept.is_some_and(|swept| at < swept) {
            return;
        }
        source.swept = Some(at);
        self.list(proxy, at, sessions);
    }

    /// Takes in those sessions of a proxy that are known so far, before its first complete
    /// sweep: what is joined by them need not wait for the others. They prove nothing of any
    /// other, so after a complete sweep they are not heard.
    pub fn observe_some(&mut self, proxy: ProxyIndex, at: Time, sessions: Vec<ProxySession>) {
        if self.proxy_swept(proxy).is_none() {
            self.list(proxy, at, sessions);
        }
    }

    /// Puts these in the place of what the proxy claimed before.
    fn list(&mut self, proxy: ProxyIndex, at: Time, sessions: Vec<ProxySession>) {
        self.proxy_alive(proxy, at);
        for table in self.tables.values_mut() {
            table.claims.remove(&proxy);
            table.dropped_claims.remove(&proxy);
        }
        for session in sessions {
            let Some((server, instance)) = self.routes.get(&session.server) else { continue };
            let Some(table) = self.tables.get_mut(instance) else { continue };
            table.claim(proxy, at, *server, session);
        }
        for table in self.tables.values_mut() {
            table.join_all();
        }
    }

    /// The servers it was made for, in the order of [`Session::server`].
    pub fn servers(&self) -> &[ServerId] {
        &self.servers
    }

    /// Notes that a proxy answered: its last sweep still speaks of the same processes.
    pub fn proxy_alive(&mut self, proxy: ProxyIndex, at: Time) {
        let source = self.proxies.entry(proxy).or_default();
        source.alive = source.alive.max(Some(at));
    }

    /// When a proxy last answered anything.
    pub fn proxy_seen(&self, proxy: ProxyIndex) -> Option<Time> {
        self.proxies.get(&proxy).and_then(|source| source.alive)
    }

    /// When all sessions of a proxy were last listed.
    pub fn proxy_swept(&self, proxy: ProxyIndex) -> Option<Time> {
        self.proxies.get(&proxy).and_then(|source| source.swept)
    }

    /// Takes in the database's rows. `at` is when the answer was asked for.
    pub fn observe_activity(
        &mut self,
        instance: &InstanceId,
        at: Time,
        seen: Seen<'_>,
        rows: Vec<ActivityRow>,
    ) {
        let Some(table) = self.tables.get_mut(instance) else { return };
        table.observe(at, seen, rows);
    }

    /// When all rows of an instance were last listed.
    pub fn polled(&self, instance: &InstanceId) -> Option<Time> {
        self.tables.get(instance).and_then(|table| table.polled)
    }

    /// When all rows of an instance were listed for the first time.
    pub fn first_polled(&self, instance: &InstanceId) -> Option<Time> {
        self.tables.get(instance).and_then(|table| table.first_polled)
    }

    /// Rows and proxy sessions of the last polls that were left out because the
    /// tables are full: sessions that are never closed.
    pub fn dropped(&self) -> usize {
        let claims = |table: &Table| table.dropped_claims.values().sum::<usize>();
        self.tables.values().map(|table| table.dropped_rows + claims(table)).sum()
    }

    /// How many sessions there are.
    pub fn len(&self) -> usize {
        self.tables.values().map(|table| table.rows.len()).sum()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The instances, in order.
    pub fn instances(&self) -> impl Iterator<Item = &InstanceId> {
        self.tables.keys()
    }

    /// All sessions of one instance, in no order.
    pub fn sessions_of<'a>(&'a self, instance: &InstanceId) -> impl Iterator<Item = Session<'a>> {
        self.tables.get_key_value(instance).into_iter().flat_map(|(instance, table)| {
            table.rows.values().map(move |entry| Table::session(instance, entry))
        })
    }

    /// All sessions, instance by instance.
    pub fn sessions(&self) -> impl Iterator<Item = Session<'_>> {
        self.tables.iter().flat_map(|(instance, table)| {
            table.rows.values().map(move |entry| Table::session(instance, entry))
        })
    }
}

impl Table {
    fn claim(&mut self, proxy: ProxyIndex, at: Time, server: ServerIndex, session: ProxySession) {
        let claims = self.claims.entry(proxy).or_default();
        let full = claims.len() >= MAX_CLAIMS;
        match claims.entry(canonical(session.outgoing)) {
            hash_map::Entry::Occupied(mut claim) => claim.get_mut().contested = true,
            hash_map::Entry::Vacant(_) if full => *self.dropped_claims.entry(proxy).or_default() += 1,
            hash_map::Entry::Vacant(vacant) => {
                let begin = at - session.age;
                vacant.insert(Claim { begin, seen: at, contested: false, server, session: session.into() });
            }
        }
    }

    fn observe(&mut self, at: Time, seen: Seen<'_>, rows: Vec<ActivityRow>) {
        // An answer overtaken by a newer one would bring back what has ended.
        if self.polled.is_some_and(|polled| at < polled) {
            return;
        }
        let mut new = Vec::new();
        for row in rows {
            match self.rows.get_mut(&row.key) {
                Some(entry) if entry.seen > at => {}
                // The begin stays as first seen: a slow answer must not move the limit.
                Some(entry) if entry.row.client == row.client => entry.renew(at, row),
                // A server that was started anew has given the id to another.
                Some(_) => {
                    self.rows.remove(&row.key);
                    new.push(row);
                }
                None => new.push(row),
            }
        }
        // What this poll covered and did not show has ended.
        match seen {
            Seen::All => self.rows.retain(|_, entry| entry.seen >= at),
            Seen::Only(keys) => {
                for key in keys {
                    if self.rows.get(key).is_some_and(|entry| entry.seen < at) {
                        self.rows.remove(key);
                    }
                }
            }
        }
        let free = MAX_ROWS.saturating_sub(self.rows.len());
        if matches!(seen, Seen::All) {
            self.polled = Some(at);
            self.first_polled.get_or_insert(at);
            self.dropped_rows = new.len().saturating_sub(free);
        }
        for row in new.into_iter().take(free) {
            let begin = Begin::of(at, row.age);
            let idle = matches!(row.activity, Activity::Idle(_)).then_some(at);
            let joint = join(&self.claims, row.client, begin);
            let entry = Entry { row, seen: at, begin, last_idle: idle, restless_since: idle, joint };
            self.rows.insert(entry.row.key, entry);
        }
    }

    fn session<'a>(instance: &'a InstanceId, entry: &'a Entry) -> Session<'a> {
        Session {
            instance,
            row: &entry.row,
            seen: entry.seen,
            begin: match (&entry.begin, &entry.joint) {
                (Begin::At(begin), _) => *begin,
                (Begin::By { latest, .. }, Joint::With(_, _, accepted)) => *accepted.min(latest),
                (Begin::By { latest, .. }, Joint::Nobody | Joint::Disagree) => *latest,
            },
            dated: matches!((&entry.begin, &entry.joint), (Begin::At(_), _) | (_, Joint::With(..))),
            settled: entry.begin.settled(),
            last_idle: entry.last_idle,
            restless_since: entry.restless_since,
            join: match &entry.joint {
                Joint::With(session, ..) => Join::Joined(session),
                Joint::Nobody => Join::NotJoined,
                Joint::Disagree => Join::Disagree,
            },
            server: match &entry.joint {
                Joint::With(_, server, _) => Some(*server),
                Joint::Nobody | Joint::Disagree => None,
            },
        }
    }

    fn join_all(&mut self) {
        for entry in self.rows.values_mut() {
            entry.joint = join(&self.claims, entry.row.client, entry.begin);
        }
    }
}

/// The proxies' side of the connection from this address that began then.
fn join(
    claims: &BTreeMap<ProxyIndex, HashMap<SocketAddr, Claim>>,
    client: Option<SocketAddr>,
    begin: Begin,
) -> Joint {
    let Some(client) = client.map(canonical) else { return Joint::Nobody };
    let speak = |claim: &&Claim| claim.seen >= begin.settled();
    let mut claims = claims.values().filter_map(|claims| claims.get(&client)).filter(speak);
    let Some(claim) = claims.next() else { return Joint::Nobody };
    let apart = match begin {
        Begin::At(begin) => claim.begin.since(begin).max(begin.since(claim.begin)),
        // An earlier begin is no contradiction: a session that has had the port since before the
        // row was first seen, and has it still, is the one that the row speaks of.
        Begin::By { latest, .. } => claim.begin.since(latest),
    };
    if claims.next().is_some() || claim.contested || apart > AGE_TOLERANCE {
        Joint::Disagree
    } else {
        Joint::With(claim.session.clone(), claim.server, claim.begin)
    }
}

impl Begin {
    fn of(at: Time, age: Age) -> Self {
        match age {
            Age::Exactly(age) => Self::At(at - age),
            Age::AtLeast(age) => Self::By { latest: at - age, first_seen: at },
        }
    }

    fn settled(self) -> Time {
        let (Self::At(sure) | Self::By { first_seen: sure, .. }) = self;
        sure + freshness::LISTING_SETTLED
    }
}

impl Entry {
    fn renew(&mut self, at: Time, row: ActivityRow) {
        if matches!(row.activity, Activity::Idle(_)) {
            let lately = self.last_idle.is_some_and(|idle| at.since(idle) <= RESTLESS);
            self.restless_since = self.restless_since.filter(|_| lately).or(Some(at));
            self.last_idle = Some(at);
        }
        if let Begin::By { latest, .. } = &mut self.begin {
            *latest = (*latest).min(at - row.age.at_least());
        }
        self.seen = at;
        self.row = row;
    }
}

/// An IPv4 address that one side shows in IPv6 clothes is the same address.
fn canonical(address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V4(_) => address,
        IpAddr::V6(v6) => SocketAddr::new(v6.to_canonical(), address.port()),
    }
}
