//! The runtime socket of one HAProxy: admin flags twice a second, drains and closes
//! as commanded. Its sessions are listed apart, in [`sweeps`](super::sweeps): a listing
//! may take long, and nothing here waits for it.
//!
//! A connection is kept for one round only. After a reload, a kept one would
//! stay with the old worker, show its flags, and change nothing that matters.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::SocketAddr,
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use agent_core::{
    ProxyIndex, ServerId, Time,
    health::{Connects, ProxyView},
    plan::{AdminFlags, DrainSent, Outcome, Retire, Retired},
    session::ProxySessionKey,
};
use haproxy::{
    Address,
    close::{Closed, close, close_in_worker},
    runtime::{AdminState, Connection, Limits, Operational, RuntimeError, ServerState, Stat},
    show_sess::Session,
};
use tokio::{
    sync::mpsc,
    task::{JoinHandle, spawn_blocking},
    time::{Instant, sleep_until, timeout_at},
};

use super::{
    orders::{Command, Order},
    take_back::{self, TakenBack},
};
use crate::{
    events::{
        CloseFailed, DrainNotTaken, Episodes, Event, ProxyBack, ProxyCompared, ProxyLost,
        Retired as RetiredEvent, StateFailed,
    },
    messages::Input,
    seen::{self, Difference, Expected, ProxyTable, ShownServer},
    shared::Shared,
    state::{StateError, server_state},
};

/// Between two looks at the admin flags.
const ROUND: Duration = Duration::from_millis(500);

/// Counters that took longer to arrive are of no moment that is known well enough to compare them.
const PROMPT: Duration = Duration::from_millis(100);

/// Between two looks while the socket does not answer.
const LOST: Duration = Duration::from_secs(2);

/// A close that was decided longer ago than this is not made: the session may be in a
/// transaction again.
const STALE: Duration = Duration::from_millis(50);

/// Nor is one that takes longer than this from the decision on.
const SLOW_CLOSE: Duration = Duration::from_millis(250);

/// A command about a server that has waited longer than this, because the socket hung,
/// is dropped: things have moved on, and what is still wanted is asked for again.
const OUTDATED: Duration = Duration::from_secs(2);

/// What could not be sent so soon after a drain was decided is not sent: the planner has
/// given it up.
const DRAIN_TAKES: Duration = Duration::from_secs(9);

#[derive(Clone, Debug)]
pub struct Config {
    /// Its index in the configuration.
    pub proxy: ProxyIndex,
    pub socket: Address,
    /// Its master socket, if it has one.
    pub master: Option<Address>,
    /// Its servers, by backend and server name.
    pub servers: HashMap<(String, String), ServerId>,
    /// HAProxy's server state file, if the agent keeps it current.
    pub state_file: Option<PathBuf>,
    /// Whether verdicts follow the addresses that HAProxy dials.
    pub follow_addresses: bool,
    /// What it is compared with.
    pub expected: Expected,
    /// What one command may cost.
    pub limits: Limits,
}

/// Looks after one HAProxy for ever.
pub async fn run(config: Config, shared: Shared, mut commands: mpsc::Receiver<Order>) {
    let mut task = Proxy::new(config, shared);
    loop {
        let result = task.round(&mut commands).await;
        let next = Instant::now()
            + match result {
                Ok(()) => ROUND,
                Err(error) => {
                    task.lost(&error);
                    LOST
                }
            };
        // Commands are not kept waiting for the next round while the socket works.
        tokio::select! {
            () = sleep_until(next) => {}
            command = commands.recv() => match command {
                Some(command) => task.command(command).await,
                None => return,
            },
        }
    }
}

struct Proxy {
    config: Arc<Config>,
    shared: Shared,
    episodes: Episodes,
    /// Whether the socket answered last time, and since when it answers.
    well: bool,
    since: Instant,
    version: String,
    /// The process that answered last, by its id and its uptime: in a container the id may be the same.
    process: Option<(u32, u64)>,
    /// The last differences from the configuration.
    differences: Vec<Difference>,
    /// The server state file as last written.
    state_file: String,
    /// The write under way. A disk that hangs has one at most.
    state_write: Option<JoinHandle<Result<String, StateError>>>,
}

fn not_sent(error: impl Into<String>) -> (DrainSent, String) {
    (DrainSent::NotSent, error.into())
}

impl Proxy {
    fn new(config: Config, shared: Shared) -> Self {
        Self {
            config: Arc::new(config),
            shared,
            episodes: Episodes::default(),
            well: false,
            since: Instant::now(),
            version: String::new(),
            process: None,
            differences: Vec::new(),
            state_file: String::new(),
            state_write: None,
        }
    }

    async fn round(&mut self, commands: &mut mpsc::Receiver<Order>) -> Result<(), RuntimeError> {
        let mut connection = Connection::open(&self.config.socket, self.config.limits).await?;
        if !self.well {
            let info = connection.info().await?;
            self.episodes.ends("socket");
            ProxyBack { proxy: &self.config.socket.to_string(), version: &info.version_text, pid: info.pid }
                .emit(&self.shared.metrics);
            self.well = true;
            self.since = Instant::now();
            self.version = info.version_text;
        }
        self.flags(&mut connection).await?;
        self.write_state_file(&mut connection).await?;
        while let Ok(command) = commands.try_recv() {
            self.command(command).await;
        }
        Ok(())
    }

    fn lost(&mut self, error: &RuntimeError) {
        self.well = false;
        let error = error.to_string();
        let news = self.episodes.begins("socket", &error);
        ProxyLost { proxy: &self.config.socket.to_string(), error, news }.emit(&self.shared.metrics);
    }

    async fn flags(&mut self, connection: &mut Connection) -> Result<(), RuntimeError> {
        let at = self.shared.clock.now();
        let info = connection.info().await?;
        let table = connection.servers_state(None).await?;
        let rows = connection.stat().await?;
        let prompt = self.shared.clock.now().since(at) <= PROMPT;
        let states: HashMap<(&str, &str), &ServerState> =
            table.iter().map(|state| ((&*state.backend, &*state.server), state)).collect();
        // The table is whole: what it lacks has been taken out of the proxy's configuration.
        let flags = self.config.servers.values().map(|server| {
            let state = states.get(&(&*server.backend, &*server.server)).copied();
            (server.clone(), state.map_or(AdminFlags::ABSENT, flags_of))
        });
        let flags = flags.collect();
        let up = self.config.servers.iter().filter(|((backend, server), _)| {
            let state = states.get(&(&**backend, &**server));
            state.is_some_and(|state| state.takes_new_sessions())
        });
        let view = ProxyView {
            up: up.map(|(_, server)| server.clone()).collect(),
            fallbacks: self.fallbacks(&rows),
            dials: self.dials(&states),
            connects: if prompt { self.connects(&rows) } else { BTreeMap::new() },
        };
        let before = self.process.replace((info.pid, info.uptime));
        let restarted = before.is_some_and(|(pid, uptime)| pid != info.pid || info.uptime < uptime);
        self.shared.send(Input::Admin { proxy: self.config.proxy, at, flags, view, restarted }).await;
        self.compare(&table, &rows, at).await;
        Ok(())
    }

    /// Compares HAProxy with the configuration, reports what has changed, and passes on what it shows.
    async fn compare(&mut self, states: &[ServerState], rows: &[Stat], at: Time) {
        let silent = |server: &str| Some(self.shared.questions.silent_for(server, self.since));
        let differences = seen::differences(&self.config.expected, states, silent);
        let proxy = self.config.socket.to_string();
        ProxyCompared { proxy: &proxy, before: &self.differences, now: &differences }
            .emit(&self.shared.metrics);
        self.differences.clone_from(&differences);
        let ours = states
            .iter()
            .filter(|state| self.config.servers.contains_key(&(state.backend.clone(), state.server.clone())));
        let servers = ours.map(|state| {
            let row = rows.iter().find(|row| row.proxy == state.backend && row.server == state.server);
            (format!("{}/{}", state.backend, state.server), ShownServer::of(state, row))
        });
        let table = ProxyTable { at, version: self.version.clone(), servers: servers.collect(), differences };
        self.shared.send(Input::Table { proxy, table: Arc::new(table) }).await;
    }

    /// Replaces HAProxy's server state file if a state has changed.
    ///
    /// The agent's own drains are left out: HAProxy would load them as if an operator had set them. Those that an
    /// operator asked for stay.
    /// Until the first snapshot it is unknown which drains are the agent's, so nothing is written.
    async fn write_state_file(&mut self, connection: &mut Connection) -> Result<(), RuntimeError> {
        let Some(path) = self.config.state_file.clone() else { return Ok(()) };
        if !self.state_file_is_idle().await {
            return Ok(());
        }
        let snapshot = self.shared.snapshot.borrow().clone();
        if snapshot.fleet.servers.is_empty() {
            return Ok(());
        }
        let own = |backend: &str, server: &str| {
            let phase = snapshot.drains.get(&format!("{backend}/{server}"));
            phase.is_some_and(|phase| !phase.is_operators())
        };
        let text = connection.state_file(own).await?;
        if text == self.state_file {
            return Ok(());
        }
        // Nothing waits for the disk: a verdict must not.
        self.state_write = Some(spawn_blocking(move || server_state::replace(&path, &text).map(|()| text)));
        Ok(())
    }

    /// Takes the result of the last write of the state file. Whether another one may begin.
    async fn state_file_is_idle(&mut self) -> bool {
        if self.state_write.as_ref().is_some_and(|write| !write.is_finished()) {
            return false;
        }
        let Some(write) = self.state_write.take() else { return true };
        match write.await {
            Ok(Ok(text)) => {
                self.episodes.ends("state file");
                self.state_file = text;
            }
            Ok(Err(error)) => {
                let error = error.to_string();
                if self.episodes.begins("state file", &error) {
                    let consequence = "HAProxy starts with an old state if it is restarted without an agent";
                    StateFailed { consequence, error }.emit(&self.shared.metrics);
                }
            }
            // The runtime stops.
            Err(_) => {}
        }
        true
    }

    /// The backends with a `backup` server that is not one of the agent's: a waiting room, or another
    /// way that the operator has provided.
    fn fallbacks(&self, stats: &[Stat]) -> BTreeSet<Arc<str>> {
        stats
            .iter()
            .filter(|stat| {
                stat.backup && !stat.status.starts_with("DOWN") && !stat.status.starts_with("MAINT")
            })
            .filter(|stat| !self.config.servers.contains_key(&(stat.proxy.clone(), stat.server.clone())))
            .map(|stat| stat.proxy.as_str().into())
            .collect()
    }

    fn dials(&self, states: &HashMap<(&str, &str), &ServerState>) -> BTreeMap<ServerId, SocketAddr> {
        if !self.config.follow_addresses {
            return BTreeMap::new();
        }
        let shown = self.config.servers.iter().filter_map(|((backend, server), id)| {
            let address = states.get(&(&**backend, &**server))?.socket_address()?;
            Some((id.clone(), SocketAddr::new(address.ip().to_canonical(), address.port())))
        });
        shown.collect()
    }

    fn connects(&self, stats: &[Stat]) -> BTreeMap<ServerId, Connects> {
        let known = stats.iter().filter_map(|stat| {
            let server = self.config.servers.get(&(stat.proxy.clone(), stat.server.clone()))?;
            let connects = Connects { begun: stat.tries, failed: stat.failed, aborted: stat.aborted };
            Some((server.clone(), connects))
        });
        known.collect()
    }

    /// Whether another of the agent's servers in this backend takes new sessions, for all that
    /// the proxy itself knows. Another agent may have drained it meanwhile.
    fn another_takes_sessions(&self, states: &[ServerState], server: &ServerId) -> bool {
        states.iter().any(|other| {
            let known = self.config.servers.contains_key(&(other.backend.clone(), other.server.clone()));
            let running = matches!(other.operational, Operational::Starting | Operational::Running);
            known && *other.server != *server.server && flags_of(other).clear() && running
        })
    }

    async fn command(&mut self, order: Order) {
        let ongoing = self.shared.ongoing.clone();
        let _ongoing = ongoing.begin().await;
        let Order { command, decided } = order;
        let outdated = decided.elapsed() > OUTDATED;
        match command {
            Command::Drain { server, force } => {
                let drained = if outdated {
                    Err(not_sent("the order waited too long"))
                } else {
                    self.drain(&server, force, decided).await
                };
                let sent = match drained {
                    Ok(()) => DrainSent::Sent,
                    Err((sent, error)) => {
                        self.shared.send(Input::NotDrained { server: server.clone(), error }).await;
                        sent
                    }
                };
                self.shared.send(Input::Outcome(Outcome::Drain { server, sent })).await;
            }
            Command::Undrain(server) if outdated => {
                self.shared.send(Input::Outcome(Outcome::Undrain { server, taken: false })).await;
            }
            Command::Undrain(server) => {
                let taken = self.undrain(&server).await;
                if let Err(error) = &taken {
                    tracing::debug!(%server, %error, "drain not taken back yet");
                }
                self.shared.send(Input::Outcome(Outcome::Undrain { server, taken: taken.is_ok() })).await;
            }
            Command::Agent(server, up) => {
                // Only faster than the next check, which says the same.
                // Said too late, it would contradict one that was made meanwhile.
                if !outdated
                    && let Ok(mut connection) = self.open().await
                    && decided.elapsed() <= OUTDATED
                {
                    let _ = connection.set_agent(&server.backend, &server.server, up).await;
                    let _ = self.write_state_file(&mut connection).await;
                }
            }
            // Other closes and a listing of all sessions may have come first.
            Command::Close(command) if decided.elapsed() > STALE => {
                self.shared.close_ended(&command, Retired::Busy).await;
            }
            Command::Close(command) => self.close(&command, decided).await,
        }
    }

    async fn open(&self) -> Result<Connection, RuntimeError> {
        Connection::open(&self.config.socket, self.config.limits).await
    }

    async fn drain(
        &mut self,
        server: &ServerId,
        force: bool,
        decided: Instant,
    ) -> Result<(), (DrainSent, String)> {
        let failed = |error: RuntimeError| not_sent(error.to_string());
        let mut connection = self.open().await.map_err(failed)?;
        let states = self.table(&mut connection, server).await.map_err(failed)?;
        let state = self.row(&states, server).map_err(failed)?;
        // An operator may have come first; the time between this look and the next
        // command is all that is left to chance.
        if !flags_of(state).clear() {
            return Err(not_sent("it has an admin state set by an operator"));
        }
        if !force && !self.another_takes_sessions(&states, server) {
            return Err(not_sent("no other server of the backend takes new sessions in HAProxy"));
        }
        if decided.elapsed() > DRAIN_TAKES {
            return Err(not_sent("HAProxy took too long to answer"));
        }
        let subject = format!("drain {server}");
        match connection.set_state(&server.backend, &server.server, AdminState::Drain).await {
            Ok(()) => {
                self.episodes.ends(&subject);
                let _ = self.flags(&mut connection).await;
                Ok(())
            }
            // An answer could carry it, but without the agent nothing could take it back.
            Err(error @ (RuntimeError::Denied { .. } | RuntimeError::Refused { .. })) => {
                let error = error.to_string();
                if self.episodes.begins(&subject, &error) {
                    DrainNotTaken { server, error: error.clone() }.emit(&self.shared.metrics);
                }
                Err(not_sent(error))
            }
            // It may have been taken: the flags will tell, and the record stays.
            Err(error) => Err((DrainSent::Unclear, error.to_string())),
        }
    }

    async fn undrain(&mut self, server: &ServerId) -> Result<TakenBack, RuntimeError> {
        let mut connection = self.open().await?;
        let taken = take_back::take_back(&mut connection, &server.backend, &server.server, OUTDATED).await?;
        self.flags(&mut connection).await?;
        Ok(taken)
    }

    /// All servers of a server's backend.
    async fn table(
        &self,
        connection: &mut Connection,
        server: &ServerId,
    ) -> Result<Vec<ServerState>, RuntimeError> {
        let asked = Instant::now();
        let states = connection.servers_state(Some(&server.backend)).await?;
        if asked.elapsed() > OUTDATED {
            // The answer may be from before a pause of this process: things have moved on.
            let command = format!("show servers state {}", server.backend);
            return Err(RuntimeError::TimedOut { peer: self.config.socket.clone(), command });
        }
        Ok(states)
    }

    fn row<'a>(&self, states: &'a [ServerState], server: &ServerId) -> Result<&'a ServerState, RuntimeError> {
        states.iter().find(|state| *state.server == *server.server).ok_or_else(|| RuntimeError::Refused {
            peer: self.config.socket.clone(),
            command: format!("show servers state {}", server.backend),
            answer: format!("no server {server}"),
        })
    }

    async fn close(&mut self, command: &Retire, decided: Instant) {
        let shared = self.shared.clone();
        let Some(permit) = shared.permit(&command.instance, command.purpose) else {
            return shared.close_ended(command, Retired::OverBudget).await;
        };
        shared.close_begins(command);
        let began = Instant::now();
        // A proxy that stands still for a moment says nothing of what the session does
        // when it goes on.
        let result = timeout_at(decided + SLOW_CLOSE, self.shut_down(command)).await.unwrap_or_else(|_| {
            Err(RuntimeError::TimedOut {
                peer: self.config.socket.clone(),
                command: "shutdown session".into(),
            })
        });
        let retired = match &result {
            Ok(Closed::Sent) => Retired::Closed,
            Ok(Closed::Gone) => Retired::Gone,
            Ok(Closed::Changed) => Retired::Changed,
            Err(RuntimeError::Denied { .. }) => Retired::Denied,
            Err(_) => Retired::Failed,
        };
        if let Err(error) = result {
            let error = error.to_string();
            let news = self.episodes.begins(&format!("close {}", command.key.pid), &error);
            CloseFailed { command, error, news }.emit(&shared.metrics);
        }
        match retired {
            Retired::Closed | Retired::Failed => drop(permit),
            _ => permit.cancel(),
        }
        RetiredEvent { command, result: retired, took: began.elapsed() }.emit(&shared.metrics);
        shared.close_ended(command, retired).await;
    }

    async fn shut_down(&mut self, command: &Retire) -> Result<Closed, RuntimeError> {
        let proxy = &command.proxy;
        // Sessions of an Envoy are not closed at a command, and no other proxy's come here.
        let ProxySessionKey::Haproxy(key) = &proxy.key else { return Ok(Closed::Changed) };
        let session = Session {
            pointer: key.pointer.to_string(),
            id: key.id,
            accepted: key.accepted.to_string(),
            frontend: String::new(),
            backend: proxy.server.backend.to_string(),
            server: proxy.server.server.to_string(),
            source: proxy.source,
            outgoing: proxy.outgoing,
            peer: proxy.peer,
            apparent_age: None,
        };
        let mut connection = self.open().await?;
        // Pointers of one worker mean nothing in another.
        if connection.info().await?.pid == key.worker {
            return close(&mut connection, &session).await;
        }
        match &self.config.master {
            Some(master) => close_in_worker(master, key.worker, &session, self.config.limits).await,
            None => Ok(Closed::Gone),
        }
    }
}

fn flags_of(state: &ServerState) -> AdminFlags {
    AdminFlags {
        drain: state.forced_drain(),
        maint: state.forced_maint(),
        other: state.other_admin(),
        weightless: state.weight == 0,
    }
}

#[cfg(test)]
mod tests;
