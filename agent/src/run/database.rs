//! The tasks of one database. They begin as soon as everything that its logins need is there: until then
//! the other databases run, and this one is tried again.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use agent_aws::source::TokenSource;
use agent_core::{
    Fault, FaultKind, InstanceId, Phase,
    health::Observation,
    plan::{Mode, Policy},
};
use agent_database::{Limits, TlsTrust};
use tokio::{
    sync::{Notify, mpsc},
    task::JoinSet,
    time::{Instant, sleep},
};

use super::{COMMANDS, Task, logins::Logins};
use crate::{
    config::Database,
    engine,
    events::{AuthoritiesKept, DatabaseReady, DatabaseUnusable, Episodes, Event},
    instances::{addresses, door::Door, host_block, liveness, probe, sessions, unfinished::Unfinished},
    messages::{CloseOrder, Input},
    shared::Shared,
};

/// The interval between two tries. A CA file in a watched directory is noticed sooner.
const AGAIN: Duration = Duration::from_secs(5);

pub(super) struct DatabaseTasks {
    database: Database,
    logins: Logins,
    shared: Shared,
    sessions: sessions::Config,
    /// What the planner sends to each instance with connections of its own.
    orders: Vec<mpsc::Receiver<CloseOrder>>,
}

/// Why a database cannot be logged in to.
struct Unusable {
    line: u64,
    fault: Fault,
}

// === impl DatabaseTasks ===

impl DatabaseTasks {
    /// The tasks, and where the commands for each instance go.
    pub(super) fn new(
        database: &Database,
        policy: &Policy,
        logins: &Logins,
        shared: &Shared,
    ) -> (Self, Vec<(InstanceId, mpsc::Sender<CloseOrder>)>) {
        let connected = database.instances.iter().filter(|_| database.liveness);
        let (routes, orders) = connected
            .map(|instance| {
                let (sender, orders) = mpsc::channel(COMMANDS);
                ((instance.id().clone(), sender), orders)
            })
            .unzip();
        let sessions = sessions::Config {
            probe_interval: database.probe_interval,
            interval: (policy.max_age / 20).clamp(Duration::from_millis(500), Duration::from_secs(5)),
            method: database.method,
            closing: policy.mode == Mode::Retire,
        };
        let (database, logins, shared) = (database.clone(), logins.clone(), shared.clone());
        (Self { database, logins, shared, sessions, orders }, routes)
    }

    pub(super) async fn run(self) {
        let mut reported = None;
        let doors = loop {
            match self.doors().await {
                Ok(doors) => break doors,
                Err(Unusable { line, fault }) => {
                    if reported.as_ref() != Some(&fault.message) {
                        DatabaseUnusable { database: &self.database.name, line, error: &fault.message }
                            .emit(&self.shared.metrics);
                        reported = Some(fault.message.clone());
                    }
                    self.report(&fault).await;
                }
            }
            sleep(AGAIN).await;
        };
        DatabaseReady { database: &self.database.name, news: reported.is_some() }.emit(&self.shared.metrics);
        let mut tasks = JoinSet::new();
        let mut orders = self.orders.into_iter();
        for door in doors {
            for task in tasks_of(door, &self.database, self.sessions.clone(), orders.next()) {
                tasks.spawn(task);
            }
        }
        while let Some(ended) = tasks.join_next().await {
            if let Err(error) = ended
                && let Ok(panic) = error.try_into_panic()
            {
                std::panic::resume_unwind(panic);
            }
        }
    }

    /// The way to log in to each instance.
    async fn doors(&self) -> Result<Vec<Arc<Door>>, Unusable> {
        let database = &self.database;
        let trust = self.trust()?;
        let mut sources = Vec::new();
        for instance in &database.instances {
            sources.push(self.logins.token_source(instance).await.map_err(|error| Unusable {
                line: database.lines.name,
                fault: Fault::new(Phase::Login, FaultKind::NoToken, error),
            })?);
        }
        Ok(self.doors_with(&trust, sources))
    }

    fn doors_with(&self, trust: &Arc<TlsTrust>, sources: Vec<Arc<TokenSource>>) -> Vec<Arc<Door>> {
        let database = &self.database;
        let engine = engine::of(database);
        let probe_now = Arc::new(Notify::new());
        let door = |target, tokens| {
            Arc::new(Door {
                target,
                engine: engine.clone(),
                trust: trust.clone(),
                tokens,
                limits: Limits::default(),
                shared: self.shared.clone(),
                probe_now: probe_now.clone(),
                episodes: Mutex::new(Episodes::default()),
                unfinished: engine::blocks_hosts(database)
                    .then(|| Mutex::new(Unfinished::new(Instant::now()))),
            })
        };
        let targets = database.instances.iter().map(|instance| instance.target.clone());
        targets.zip(sources).map(|(target, tokens)| door(target, tokens)).collect()
    }

    fn trust(&self) -> Result<Arc<TlsTrust>, Unusable> {
        let Database { name, lines, trust, .. } = &self.database;
        self.logins.trust(trust).or_else(|(error, before)| {
            let line = lines.ca_file;
            let Some(before) = before else {
                let fault = Fault::new(Phase::Tls, FaultKind::CertificateInvalid, error);
                return Err(Unusable { line, fault });
            };
            AuthoritiesKept { database: name, line, error: &error }.emit(&self.shared.metrics);
            Ok(before)
        })
    }

    /// Where `/state` shows why an instance is not known.
    async fn report(&self, fault: &Fault) {
        for instance in &self.database.instances {
            let (instance, at) = (instance.id().clone(), self.shared.clock.now());
            let result = Err(fault.clone());
            self.shared.send(Input::Health(Observation { instance, at, login: true, result })).await;
        }
    }
}

/// The tasks of one instance. `orders` are missing if the agent keeps no connection open.
fn tasks_of(
    door: Arc<Door>,
    database: &Database,
    sessions: sessions::Config,
    orders: Option<mpsc::Receiver<CloseOrder>>,
) -> Vec<Task> {
    let mut tasks: Vec<Task> = vec![
        Box::pin(probe::run(door.clone(), database.probe_interval)),
        Box::pin(addresses::run(door.clone(), database.probe_interval)),
    ];
    if let Some(orders) = orders {
        tasks.push(Box::pin(liveness::run(door.clone())));
        if engine::blocks_hosts(database) {
            tasks.push(Box::pin(host_block::run(door.clone())));
        }
        tasks.push(Box::pin(sessions::run(door, sessions, orders)));
    }
    tasks
}

#[cfg(test)]
mod tests {
    use tokio::sync::watch;

    use super::*;
    use crate::{clock::Clock, snapshot::Snapshot};

    #[tokio::test]
    async fn probes_on_demand_are_for_the_instances_of_one_database() {
        let text = ["orders", "more"].map(|name| {
            format!(
                "  - name: {name}\n    engine: postgresql\n    user: agent\n    region: eu-west-1\n    instances:\n      \
                 - {{name: a, endpoint: '{name}-a.abc.eu-west-1.rds.amazonaws.com:5432'}}\n      \
                 - {{name: b, endpoint: '{name}-b.abc.eu-west-1.rds.amazonaws.com:5432'}}\n"
            )
        });
        let config = crate::config::parse("test", &format!("databases:\n{}", text.concat())).unwrap().config;
        let clock = Clock::start();
        let (decider, _inputs) = mpsc::channel(1);
        let (_publish, snapshot) = watch::channel(Arc::new(Snapshot::empty(clock.now())));
        let shared = Shared::new(clock, Arc::default(), &Policy::default(), snapshot, decider);
        let logins = Logins::new(&config, None);
        let mut doors = Vec::new();
        for database in &config.databases {
            let (tasks, orders) = DatabaseTasks::new(database, &config.sessions, &logins, &shared);
            assert_eq!(orders.len(), 2);
            doors.extend(tasks.doors().await.ok().unwrap());
        }
        let same = |one: usize, other: usize| Arc::ptr_eq(&doors[one].probe_now, &doors[other].probe_now);
        assert!(same(0, 1) && same(2, 3) && !same(0, 2));
    }
}
