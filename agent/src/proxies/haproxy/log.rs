//! The log of one HAProxy: failed sessions for the journal. Nothing else depends on it: lines that are foreign, hostile or too
//! many cost a bounded piece of this task, and are counted.

use std::{
    collections::{BTreeSet, HashMap},
    io,
    sync::Arc,
    time::Duration,
};

use agent_core::{
    Time,
    hand_offs::{Certainty, Failure, Phase},
};
use haproxy::log::{Ended, Line, MAX_LINE, Side, Unread, parse};
use tokio::{
    sync::OwnedMutexGuard,
    time::{MissedTickBehavior, interval, sleep},
};

use crate::{
    config::LogAddress,
    events::{Episodes, Event, SessionLogLost, SessionLogOpened, SessionLogRead, SessionLogUnread},
    hand_offs::{
        LogCounts,
        haproxy::{Judgement, Server, failure, judge},
        sockets::LogSocket,
    },
    shared::Shared,
};

/// Datagrams that are read before other tasks get their turn.
const TURN: usize = 64;

/// Between two tries to open the address.
const AGAIN: Duration = Duration::from_secs(5);

/// Between two looks at gaps in the numbers of lines.
const ROUND: Duration = Duration::from_secs(1);

/// Frontends that are known to lead to a configured backend. A line of a session that a rule refused names no other backend.
const FRONTENDS: usize = 256;

#[derive(Clone, Debug)]
pub struct Config {
    /// The name of the proxy.
    pub proxy: String,
    pub address: LogAddress,
    pub servers: Vec<Server>,
}

/// Reads the log, for ever.
pub async fn run(config: Config, shared: Shared) {
    let address = config.address.to_string();
    let mut episodes = Episodes::default();
    let socket = loop {
        let error = match shared.hand_offs.sockets.open(&config.address) {
            // The task of the configuration before may read it for a moment longer.
            Ok(socket) => break socket.lock_owned().await,
            Err(error) => error.to_string(),
        };
        if episodes.begins("open", &error) {
            let error = Some(error);
            SessionLogOpened { proxy: &config.proxy, address: &address, error }.emit(&shared.metrics);
        }
        sleep(AGAIN).await;
    };
    SessionLogOpened { proxy: &config.proxy, address: &address, error: None }.emit(&shared.metrics);
    let mut reader = Reader::new(config, shared, episodes);
    reader.read(socket).await;
}

struct Reader {
    proxy: Arc<str>,
    backends: HashMap<String, (Arc<str>, HashMap<String, Server>)>,
    frontends: BTreeSet<String>,
    shared: Shared,
    episodes: Episodes,
    counts: LogCounts,
    /// Why the last datagram was not read.
    unread: Option<Unread>,
}

impl Reader {
    fn new(config: Config, shared: Shared, episodes: Episodes) -> Self {
        let mut backends: HashMap<String, (Arc<str>, HashMap<String, Server>)> = HashMap::new();
        for server in config.servers {
            let (_, servers) = backends
                .entry(server.backend.to_string())
                .or_insert_with(|| (server.backend.clone(), HashMap::new()));
            servers.insert(server.server.to_string(), server);
        }
        Self {
            proxy: config.proxy.as_str().into(),
            backends,
            frontends: BTreeSet::new(),
            shared,
            episodes,
            counts: LogCounts::default(),
            unread: None,
        }
    }

    async fn read(&mut self, mut socket: OwnedMutexGuard<LogSocket>) {
        // One more byte shows that a line is too long.
        let mut buffer = vec![0; MAX_LINE + 1];
        let mut rounds = interval(ROUND);
        rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                _ = rounds.tick() => {
                    self.counts.lost += socket.sequences.round();
                    self.report();
                }
                ready = socket.readable() => {
                    if ready.is_err() || self.turn(&mut socket, &mut buffer).is_err() {
                        // A socket of this kind has no lasting errors.
                        sleep(ROUND).await;
                    }
                    tokio::task::yield_now().await;
                }
            }
        }
    }

    /// Reads what is there, up to a bound.
    fn turn(&mut self, socket: &mut LogSocket, buffer: &mut [u8]) -> io::Result<()> {
        let now = self.shared.clock.now();
        for _ in 0..TURN {
            match socket.try_recv(buffer) {
                Ok(length) => self.take(now, buffer.get(..length).unwrap_or_default(), socket),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn take(&mut self, now: Time, datagram: &[u8], socket: &mut LogSocket) {
        match parse(datagram) {
            Ok(Line::Ended(ended)) => {
                if let (Some(worker), Some(number)) = (ended.worker, ended.sequence) {
                    socket.sequences.observe(worker, ended.frontend, number);
                }
                self.ended(now, &ended);
            }
            Ok(Line::Notice) => self.counts.notices += 1,
            Err(unread) => {
                self.counts.unread += 1;
                self.unread = Some(unread);
            }
        }
    }

    fn ended(&mut self, now: Time, ended: &Ended<'_>) {
        let (backend, server) = match self.backends.get(ended.backend) {
            Some((backend, servers)) => {
                if self.frontends.len() < FRONTENDS && !self.frontends.contains(ended.frontend) {
                    self.frontends.insert(ended.frontend.to_owned());
                }
                (backend.clone(), ended.server.and_then(|server| servers.get(server)))
            }
            None if ended.state.side == Side::Refused && self.frontends.contains(ended.frontend) => {
                (ended.frontend.into(), None)
            }
            None => {
                self.counts.elsewhere += 1;
                return;
            }
        };
        self.counts.sessions += 1;
        let greets = server.is_some_and(|server| server.greets);
        let of = match judge(ended, greets, server.is_some()) {
            Judgement::Fine => return,
            // What it is if its server turns out to be gone.
            Judgement::Ended if server.is_some() => (Phase::ServerGone, Certainty::Likely),
            Judgement::Ended => return,
            Judgement::Failed(phase, certainty) => (phase, certainty),
        };
        let of_backend = self.backends.get(ended.backend).and_then(|(_, servers)| servers.values().next());
        let database = of_backend.map(|server| server.instance.database.clone());
        let configured = of_backend.is_some();
        let failure = Failure { configured, ..failure(&self.proxy, &backend, database, server, ended, of) };
        let hand_offs = &self.shared.hand_offs;
        if hand_offs.is_own(now, &failure) {
            return;
        }
        if of.0 == Phase::ServerGone {
            hand_offs.ended(now, failure);
        } else {
            hand_offs.failed(now, now, failure, &self.shared.metrics);
        }
    }

    /// Once a second.
    fn report(&mut self) {
        let counts = std::mem::take(&mut self.counts);
        let LogCounts { sessions, notices, elsewhere, unread, lost } = counts;
        let (proxy, metrics) = (&*self.proxy, self.shared.metrics.clone());
        SessionLogRead { proxy, sessions, notices, elsewhere }.emit(&metrics);
        if unread > 0 {
            let reason = reason(self.unread);
            let news = self.episodes.begins("unread", &reason);
            SessionLogUnread { proxy, count: unread, reason: &reason, news }.emit(&metrics);
        }
        if lost > 0 {
            let news = self.episodes.begins("lost", "");
            SessionLogLost { proxy, count: lost, news }.emit(&metrics);
        }
        self.shared.hand_offs.count(&self.proxy, counts);
    }
}

fn reason(unread: Option<Unread>) -> String {
    match unread {
        Some(Unread::TooLong) => "longer than 4,096 bytes".into(),
        Some(Unread::NotText) => "not UTF-8".into(),
        Some(Unread::Field(field)) => format!("the field `{field}` is missing or invalid"),
        Some(Unread::Foreign) | None => "another format".into(),
    }
}
