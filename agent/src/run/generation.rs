//! All tasks of one configuration. A reload stops one generation and starts the
//! next, which inherits what was learned.

use std::{
    collections::{BTreeMap, HashMap},
    path::Path,
    pin::Pin,
    sync::{Arc, Mutex},
    time::Duration,
};

use agent_aws::{
    Region,
    credentials::{ChainOptions, CredentialChain},
    source::TokenSource,
};
use agent_core::{
    ServerId,
    health::{FleetConfig, Health, Remembered},
    plan::{Mode, Planner},
    session::Ledger,
};
use agent_database::{Engine, Limits, TlsTrust, postgresql::Postgresql};
use tokio::{
    sync::{mpsc, watch},
    task::{JoinHandle, JoinSet},
};
use tokio_util::sync::CancellationToken;

use crate::{
    config::{Config, Database, Instance, Proxy},
    events::{Episodes, Event, PauseChanged, StateFailed},
    state::{
        StateError,
        memory::MemoryFile,
        pause::PauseFile,
        records::{DrainRecord, DrainRecords},
    },
    tasks::{
        Input, Shared, credentials,
        decider::{Decider, Files, Routes},
        door::Door,
        liveness, probe, proxy, sessions,
        snapshot::Snapshot,
    },
    undrain,
};

/// Commands that may wait for one task.
const COMMANDS: usize = 1_024;

/// A generation that has been put together and not started.
pub(super) struct Generation {
    decider: Decider,
    tasks: Vec<Task>,
}

/// A generation that runs.
pub(super) struct Running {
    decider: JoinHandle<(Decider, mpsc::Receiver<Input>)>,
    tasks: JoinSet<()>,
    stop: CancellationToken,
}

/// A generation that has stopped, and what it has learned.
pub(super) struct Stopped {
    decider: Decider,
}

/// A task that runs until it is dropped.
type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Fails on what building the generation would fail on, without building it.
pub(super) fn try_out(config: &Config) -> Result<(), String> {
    for database in &config.databases {
        TlsTrust::load(database.trust.clone()).map_err(|error| error.to_string())?;
    }
    Ok(())
}

impl Generation {
    /// Puts everything together, from the state directory.
    pub(super) async fn build(
        config: &Config,
        shared: &Shared,
        publish: watch::Sender<Arc<Snapshot>>,
    ) -> Result<Self, String> {
        let files = files(&config.state_dir);
        let told = |consequence: &'static str, error: &StateError| {
            StateFailed { consequence, error: error.to_string() }.emit(&shared.metrics);
        };
        let remembered = files.memory.load().unwrap_or_else(|error| {
            told("answers are neutral until the first probes", &error);
            Vec::new()
        });
        let records = files.records.load().map_err(|error| error.to_string())?;
        let pause = files.pause.load().map_err(|error| error.to_string())?;
        if let Some(pause) = &pause {
            PauseChanged { paused: true, reason: &pause.reason }.emit(&shared.metrics);
        }
        let parts = Parts { publish, files, records, pause, remembered };
        Self::from_parts(config, shared, parts).await
    }

    async fn from_parts(config: &Config, shared: &Shared, parts: Parts) -> Result<Self, String> {
        let servers = config.servers();
        let fleet = FleetConfig {
            instances: config
                .instances()
                .map(|(database, instance)| (instance.id().clone(), database.rules.clone()))
                .collect(),
            servers: servers.clone(),
        };
        let mut routes = Routes::default();
        let mut tasks: Vec<Task> = Vec::new();
        let chain = chain(config);
        for database in &config.databases {
            database_tasks(config, database, &chain, shared, &mut routes, &mut tasks).await?;
        }
        for (index, proxy) in config.proxies.iter().enumerate() {
            proxy_task(index, proxy, shared, &mut routes, &mut tasks);
        }
        if config.sessions.mode == Mode::Retire {
            tasks.push(Box::pin(credentials::run(chain, shared.clone())));
        }
        let (records, strays) = sort_records(parts.records, config);
        for stray in strays.clone() {
            tasks.push(Box::pin(take_back(stray)));
        }
        let decider = Decider {
            health: Health::new(fleet, &parts.remembered),
            ledger: Ledger::new(&servers),
            planner: Planner::new(config.sessions.clone(), &servers),
            routes,
            shared: shared.clone(),
            publish: parts.publish,
            files: parts.files,
            records,
            strays,
            pause: parts.pause,
            remembered: parts.remembered,
        };
        Ok(Self { decider, tasks })
    }

    /// Starts all tasks.
    pub(super) fn start(self, inputs: mpsc::Receiver<Input>) -> Running {
        let stop = CancellationToken::new();
        let mut tasks = JoinSet::new();
        for task in self.tasks {
            tasks.spawn(task);
        }
        let decider = tokio::spawn(self.decider.run(inputs, stop.clone()));
        Running { decider, tasks, stop }
    }
}

impl Running {
    /// Stops all tasks. Drains stay as they are, on record.
    pub(super) async fn stop(mut self) -> (Stopped, mpsc::Receiver<Input>) {
        // Those who command first, those who carry out last: nothing is lost half-way.
        self.stop.cancel();
        let (decider, inputs) = match self.decider.await {
            Ok(ended) => ended,
            // The decider is total; if it ever panics, the process has nothing left to do.
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        };
        self.tasks.shutdown().await;
        (Stopped { decider }, inputs)
    }
}

impl Stopped {
    /// The next generation, with what this one has learned.
    pub(super) async fn rebuild(self, config: &Config, shared: &Shared) -> Result<Generation, String> {
        let decider = self.decider;
        let own = decider.records.into_iter().map(|(_, record)| record);
        let parts = Parts {
            publish: decider.publish,
            files: decider.files,
            records: own.chain(decider.strays).collect(),
            pause: decider.pause,
            remembered: decider.health.remember(),
        };
        Generation::from_parts(config, shared, parts).await
    }
}

/// What a generation begins with.
struct Parts {
    publish: watch::Sender<Arc<Snapshot>>,
    files: Files,
    records: Vec<DrainRecord>,
    pause: Option<crate::state::pause::Pause>,
    remembered: Vec<Remembered>,
}

fn files(state_dir: &Path) -> Files {
    Files {
        records: DrainRecords::in_directory(state_dir),
        memory: MemoryFile::in_directory(state_dir),
        pause: PauseFile::in_directory(state_dir),
    }
}

fn chain(config: &Config) -> CredentialChain {
    let region = config.instances().find_map(|(_, instance)| instance.region.clone());
    let region_hint = region.and_then(|region| Region::parse(&region).ok());
    CredentialChain::standard(ChainOptions { region_hint, ..ChainOptions::default() })
}

async fn database_tasks(
    config: &Config,
    database: &Database,
    chain: &CredentialChain,
    shared: &Shared,
    routes: &mut Routes,
    tasks: &mut Vec<Task>,
) -> Result<(), String> {
    let trust = Arc::new(TlsTrust::load(database.trust.clone()).map_err(|error| error.to_string())?);
    let engine: Arc<dyn Engine> = Arc::new(Postgresql);
    for instance in &database.instances {
        let tokens = Arc::new(tokens(chain, instance).await?);
        let door = Arc::new(Door {
            target: instance.target.clone(),
            engine: engine.clone(),
            trust: trust.clone(),
            tokens,
            limits: Limits::default(),
            shared: shared.clone(),
            episodes: Mutex::new(Episodes::default()),
        });
        tasks.push(Box::pin(probe::run(door.clone(), database.probe_interval)));
        if !database.liveness {
            continue;
        }
        tasks.push(Box::pin(liveness::run(door.clone())));
        let (sender, commands) = mpsc::channel(COMMANDS);
        routes.instances.insert(instance.id().clone(), sender);
        let sessions_config = sessions::Config {
            interval: (config.sessions.max_age / 20)
                .clamp(Duration::from_millis(500), Duration::from_secs(5)),
            method: database.method,
            closing: config.sessions.mode == Mode::Retire,
        };
        tasks.push(Box::pin(sessions::run(door, sessions_config, commands)));
    }
    Ok(())
}

async fn tokens(chain: &CredentialChain, instance: &Instance) -> Result<TokenSource, String> {
    let endpoint = &instance.target.endpoint;
    let region = match &instance.region {
        Some(region) => Region::parse(region).map_err(|error| error.to_string())?,
        None => chain.region().await.ok_or_else(|| {
            format!("{}: no region is known: set `region` in its database, or AWS_REGION", instance.id())
        })?,
    };
    let target = agent_aws::Target::new(&endpoint.host, endpoint.port, &instance.target.user, region)
        .map_err(|error| format!("{}: {error}", instance.id()))?;
    Ok(TokenSource::start(chain.clone(), target))
}

fn proxy_task(index: usize, proxy: &Proxy, shared: &Shared, routes: &mut Routes, tasks: &mut Vec<Task>) {
    let servers: HashMap<(String, String), ServerId> = proxy
        .servers
        .iter()
        .map(|server| ((server.id.backend.to_string(), server.id.server.to_string()), server.id.clone()))
        .collect();
    let (sender, commands) = mpsc::channel(COMMANDS);
    routes.proxies.insert(index, (sender, proxy.socket.to_string()));
    let config = proxy::Config {
        proxy: index,
        socket: proxy.socket.clone(),
        master: proxy.master.clone(),
        servers,
        limits: haproxy::runtime::Limits::default(),
    };
    tasks.push(Box::pin(proxy::run(config, shared.clone(), commands)));
}

/// Records of configured servers, and those that nothing here knows any more.
fn sort_records(
    records: Vec<DrainRecord>,
    config: &Config,
) -> (Vec<(ServerId, DrainRecord)>, Vec<DrainRecord>) {
    let mut known: BTreeMap<(String, String, String), ServerId> = BTreeMap::new();
    for proxy in &config.proxies {
        for server in &proxy.servers {
            let key = (proxy.socket.to_string(), server.id.backend.to_string(), server.id.server.to_string());
            known.insert(key, server.id.clone());
        }
    }
    let mut own = Vec::new();
    let mut strays = Vec::new();
    for record in records {
        let key = (record.socket.clone(), record.backend.clone(), record.server.clone());
        match known.get(&key) {
            Some(server) => own.push((server.clone(), record)),
            None => strays.push(record),
        }
    }
    (own, strays)
}

/// Takes back the drain of a server that is no longer configured. Its record
/// stays until the next start finds the drain gone.
async fn take_back(record: DrainRecord) {
    loop {
        match undrain::take_back(&record).await {
            Ok(_) => return,
            Err(error) => tracing::warn!(
                backend = record.backend,
                server = record.server,
                error,
                "drain not taken back yet"
            ),
        }
        tokio::time::sleep(Duration::from_secs(10)).await;
    }
}
