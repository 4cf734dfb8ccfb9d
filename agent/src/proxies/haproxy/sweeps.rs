//! The sessions of one HAProxy, in all its workers, when the planner wants them.
//!
//! On connections of its own: a listing of very many sessions takes seconds, and the
//! flags and drains of [`proxy`](super::proxy) do not wait for it.

use std::{collections::HashMap, time::Duration};

use agent_core::{
    Time,
    session::{HaproxySessionKey, ProxySession, ProxySessionKey},
};
use haproxy::{
    Address,
    runtime::{Connection, RuntimeError},
    show_sess::{HostClock, Session},
    sweep::{Sweep, Worker, sweep, sweep_worker, workers},
};
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::admin::Config;
use crate::{
    events::{Episodes, Event, OldWorkersNotListed, SessionsNotListed},
    messages::Input,
    shared::Shared,
};

/// The pause between two listings.
const REST: Duration = Duration::from_secs(1);

/// Between two tries when one has failed.
const FAILED: Duration = Duration::from_secs(2);

/// A whole listing of all workers takes no longer.
const TAKES: Duration = Duration::from_secs(30);

/// All old workers together take no longer.
const OLD_WORKERS_TAKE: Duration = Duration::from_secs(5);

/// Lists the sessions of one HAProxy whenever that is wanted, for ever.
pub async fn run(config: Config, shared: Shared) {
    let mut snapshot = shared.snapshot.clone();
    let mut task = Sweeps {
        config,
        shared,
        episodes: Episodes::default(),
        clock: HostClock::default(),
        begun: HashMap::new(),
    };
    // The first listing reads the host's clock, so that a later step of it is noticed.
    let mut first = true;
    loop {
        let proxy = task.config.proxy;
        if !std::mem::take(&mut first)
            && snapshot.wait_for(|snapshot| snapshot.watch.sweep.contains(&proxy)).await.is_err()
        {
            // Everything stops.
            return std::future::pending().await;
        }
        let listed = timeout(TAKES, task.list()).await.unwrap_or_else(|_| {
            let peer = task.config.socket.clone();
            Err(RuntimeError::TimedOut { peer, command: "show sess all".into() })
        });
        let rest = if listed.is_ok() { REST } else { FAILED };
        task.tell(listed);
        sleep(rest).await;
    }
}

struct Sweeps {
    config: Config,
    shared: Shared,
    episodes: Episodes,
    clock: HostClock,
    /// When each session of the last listing began.
    begun: HashMap<ProxySessionKey, Time>,
}

impl Sweeps {
    /// A socket that answers, but not this, is not lost: a level too low, for one, is reported
    /// once and tried again. The task that reads the flags reports a socket that does not answer at all.
    fn tell(&mut self, listed: Result<(), RuntimeError>) {
        match listed {
            Ok(()) => {
                self.episodes.ends("sessions");
            }
            Err(RuntimeError::Connect { .. } | RuntimeError::Broken { .. }) => {}
            Err(error) => {
                let error = error.to_string();
                if self.episodes.begins("sessions", &error) {
                    SessionsNotListed { proxy: &self.config.socket.to_string(), error }
                        .emit(&self.shared.metrics);
                }
            }
        }
    }

    async fn list(&mut self) -> Result<(), RuntimeError> {
        let began = Instant::now();
        let limits = self.config.limits;
        let mut all: Vec<Sweep> = Vec::new();
        // A fresh connection reaches the current worker, whichever that is by now.
        let pid = Connection::open(&self.config.socket, limits).await?.info().await?.pid;
        all.push(sweep(&self.config.socket, Worker { pid, old: false }, limits).await?);
        if let Some(master) = self.config.master.clone() {
            all.extend(self.sweep_old(&master, pid).await);
        }
        let labels = self.config.socket.to_string().as_str().into();
        self.shared.metrics.sweep_seconds.get_or_create(&labels).observe(began.elapsed().as_secs_f64());
        let at = self.shared.clock.now() - began.elapsed();
        let sessions = self.sessions(at, began, &all);
        self.shared.send(Input::Swept { proxy: self.config.proxy, at, sessions }).await;
        Ok(())
    }

    /// The sessions of the old workers, as far as they tell. Those of others are not
    /// joined then, and held; the current worker's are not held up by them.
    async fn sweep_old(&mut self, master: &Address, current: u32) -> Vec<Sweep> {
        let limits = self.config.limits;
        let mut all = Vec::new();
        let known = workers(master, limits).await;
        match &known {
            Ok(_) => {
                self.episodes.ends("master");
            }
            Err(error) => {
                let error = error.to_string();
                if self.episodes.begins("master", &error) {
                    OldWorkersNotListed { proxy: &master.to_string(), error }.emit(&self.shared.metrics);
                }
            }
        }
        let until = Instant::now() + OLD_WORKERS_TAKE;
        for worker in known.into_iter().flatten().filter(|worker| worker.pid != current) {
            // An old worker may end at any time: then it has no sessions.
            match timeout_at(until, sweep_worker(master, worker, limits)).await {
                Ok(Ok(sweep)) => all.push(sweep),
                Ok(Err(error)) => tracing::debug!(pid = worker.pid, %error, "old worker not swept"),
                Err(_) => tracing::debug!(pid = worker.pid, "old worker not swept in time"),
            }
        }
        all
    }

    /// The sessions of all workers, with their ages at `at`.
    fn sessions(&mut self, at: Time, began: Instant, all: &[Sweep]) -> Vec<ProxySession> {
        let before = std::mem::take(&mut self.begun);
        let mut sessions = Vec::new();
        for sweep in all {
            let asked = at + sweep.at.duration_since(began);
            let since_start = asked.since(Time::AGENT_START);
            if let Some(date) = sweep.date {
                self.clock.read(date, since_start);
            }
            for session in &sweep.sessions {
                let Some(mut session) = self.session(sweep.worker, session, since_start) else { continue };
                // What is known of a session does not change with the host's clock.
                let since = before.get(&session.key).copied().unwrap_or(asked - session.age);
                session.age = at.since(since);
                self.begun.insert(session.key.clone(), since);
                sessions.push(session);
            }
        }
        sessions
    }

    /// A session with its age when its worker was asked.
    fn session(&self, worker: Worker, session: &Session, asked: Duration) -> Option<ProxySession> {
        let key = (session.backend.clone(), session.server.clone());
        Some(ProxySession {
            server: self.config.servers.get(&key)?.clone(),
            key: ProxySessionKey::Haproxy(HaproxySessionKey {
                worker: worker.pid,
                pointer: session.pointer.as_str().into(),
                id: session.id,
                accepted: session.accepted.as_str().into(),
            }),
            source: session.source,
            outgoing: session.outgoing,
            peer: session.peer,
            age: self.clock.age(session.apparent_age?, asked),
            old_worker: worker.old,
        })
    }
}
