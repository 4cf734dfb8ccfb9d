//! All tasks of one configuration. A reload stops one generation and starts the
//! next, which inherits what was learned.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
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
    InstanceId, ServerId,
    health::{FleetConfig, Health, Remembered},
    plan::{DrainPhase, DrainReason, Mode, Planner},
    session::Ledger,
};
use agent_database::{Limits, TlsTrust};
use tokio::{
    sync::{mpsc, watch},
    task::{JoinHandle, JoinSet},
};
use tokio_util::sync::CancellationToken;

use crate::{
    clock::unix_seconds,
    config::{Config, Database, Instance, Proxy, ProxyKind},
    decider::{Decider, Disk, Files, Routes},
    engine,
    events::{Episodes, Event, PauseChanged, StateFailed},
    instances::{credentials, door::Door, host_block, liveness, probe, sessions, unfinished::Unfinished},
    messages::Input,
    proxies::haproxy::{admin, sweeps, take_back},
    shared::Shared,
    snapshot::Snapshot,
    state::{
        StateError,
        memory::MemoryFile,
        pause::{Pause, PauseFile},
        records::{DrainRecord, DrainRecords},
    },
};

/// Commands that may wait for one task.
pub(super) const COMMANDS: usize = 1_024;

/// How long a stop waits for what is under way.
const GRACE: Duration = Duration::from_secs(6);

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
pub(super) type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

/// All of a generation that may fail, made before the one before it is stopped.
pub(super) struct Prepared {
    routes: Routes,
    tasks: Vec<Task>,
    /// What it logs in with.
    pub(super) tokens: Tokens,
}

/// The credentials and the tokens of a configuration. The next one takes over what fits: a
/// token that is still good is worth most when AWS gives no other.
#[derive(Clone)]
pub(super) struct Tokens {
    chain: CredentialChain,
    /// All that a configuration says to the chain.
    region_hint: Option<Region>,
    sources: Vec<Arc<TokenSource>>,
}

impl Tokens {
    fn new(config: &Config, before: Option<&Self>) -> Self {
        let region = config.instances().find_map(|(_, instance)| instance.region.clone());
        let region_hint = region.and_then(|region| Region::parse(&region).ok());
        let chain = match before {
            Some(before) if before.region_hint == region_hint => before.chain.clone(),
            _ => {
                let options = ChainOptions { region_hint: region_hint.clone(), ..ChainOptions::default() };
                CredentialChain::standard(options)
            }
        };
        Self { chain, region_hint, sources: Vec::new() }
    }

    /// The tokens of an instance: those of before, where they are for the same target.
    async fn of(&mut self, instance: &Instance, before: Option<&Self>) -> Result<Arc<TokenSource>, String> {
        let endpoint = &instance.target.endpoint;
        let region = match &instance.region {
            Some(region) => Region::parse(region).map_err(|error| error.to_string())?,
            None => self.chain.region().await.ok_or_else(|| {
                let id = instance.id();
                format!("{id}: no region is known: set `region` in its database, or AWS_REGION")
            })?,
        };
        let target = agent_aws::Target::new(&endpoint.host, endpoint.port, &instance.target.user, region)
            .map_err(|error| format!("{}: {error}", instance.id()))?;
        let known = before.and_then(|before| before.sources.iter().find(|known| *known.target() == target));
        let source =
            known.cloned().unwrap_or_else(|| Arc::new(TokenSource::start(self.chain.clone(), target)));
        self.sources.push(source.clone());
        Ok(source)
    }
}

impl Prepared {
    /// Puts the tasks of a configuration together, without starting them. `before` is what the
    /// one before it logs in with.
    pub(super) async fn new(
        config: &Config,
        shared: &Shared,
        before: Option<&Tokens>,
    ) -> Result<Self, String> {
        let mut routes = Routes::default();
        let mut tasks: Vec<Task> = Vec::new();
        let mut tokens = Tokens::new(config, before);
        for database in &config.databases {
            let mut sources = Vec::new();
            for instance in &database.instances {
                sources.push(tokens.of(instance, before).await?);
            }
            database_tasks(config, database, sources, shared, &mut routes, &mut tasks)?;
        }
        for (index, proxy) in config.proxies.iter().enumerate() {
            proxy_task(index, proxy, shared, &mut routes, &mut tasks);
        }
        super::envoy::tasks(config, shared, &mut routes, &mut tasks);
        if config.sessions.mode == Mode::Retire {
            tasks.push(Box::pin(credentials::run(tokens.chain.clone(), shared.clone())));
        }
        Ok(Self { routes, tasks, tokens })
    }
}

impl Generation {
    /// Puts everything together, from the state directory.
    pub(super) fn build(
        config: &Config,
        shared: &Shared,
        publish: watch::Sender<Arc<Snapshot>>,
        prepared: Prepared,
    ) -> Result<Self, String> {
        let files = files(&config.state_dir);
        let told = |consequence: &'static str, error: &StateError| {
            StateFailed { consequence, error: error.to_string() }.emit(&shared.metrics);
        };
        let remembered = files.memory.load().unwrap_or_else(|error| {
            told("answers are neutral until the first probes", &error);
            Vec::new()
        });
        let records = recorded(&files.records, told).map_err(|error| error.to_string())?;
        let pause = paused(&files.pause, told).map_err(|error| error.to_string())?;
        if let Some(pause) = &pause {
            PauseChanged { paused: true, reason: &pause.reason }.emit(&shared.metrics);
        }
        let parts = Parts { publish, files, records, pause, remembered, wanted: Vec::new() };
        Ok(Self::from_parts(config, shared, prepared, parts))
    }

    fn from_parts(config: &Config, shared: &Shared, prepared: Prepared, parts: Parts) -> Self {
        let servers = config.servers();
        let fleet = FleetConfig {
            instances: config
                .instances()
                .map(|(database, instance)| (instance.id().clone(), database.rules.clone()))
                .collect(),
            servers: servers.clone(),
        };
        let Prepared { routes, mut tasks, .. } = prepared;
        let (records, strays) = sort_records(parts.records, config);
        for stray in strays.clone() {
            tasks.push(Box::pin(take_back(stray, shared.clone())));
        }
        let wanted = records.iter().filter(|(_, record)| parts.wanted.contains(record));
        let wanted = wanted.map(|(server, _)| server.clone()).collect();
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
            wanted,
        };
        Self { decider, tasks }
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
    /// Resolves when a task has broken off, or the decider has ended, with what is known of it.
    /// An agent of which a part is missing would go on answering what it knew before.
    pub(super) async fn broken(&mut self) -> String {
        loop {
            let ended = tokio::select! {
                ended = &mut self.decider => {
                    return ended.err().map_or_else(|| "the decider ended".into(), |error| error.to_string());
                }
                Some(ended) = self.tasks.join_next() => ended,
            };
            // Some have an end: taking back a drain, for one.
            if let Err(error) = ended {
                return error.to_string();
            }
        }
    }

    /// Stops what is left of a broken generation. Drains stay on record.
    pub(super) async fn abandon(mut self) {
        self.stop.cancel();
        self.tasks.shutdown().await;
        // It may be what has ended; else it ends within the time that it gives a disk.
        if !self.decider.is_finished() && tokio::time::timeout(GRACE, &mut self.decider).await.is_err() {
            self.decider.abort();
        }
    }

    /// Stops all tasks. Drains stay as they are, on record.
    pub(super) async fn stop(mut self, shared: &Shared) -> Result<(Stopped, mpsc::Receiver<Input>), String> {
        // Those who command first, those who carry out last: nothing is lost half-way.
        self.stop.cancel();
        let (decider, mut inputs) = self.decider.await.map_err(|error| error.to_string())?;
        let rest = shared.errands.rest(GRACE).await;
        self.tasks.shutdown().await;
        drop(rest);
        // What these tasks saw is told in terms of their configuration. What people ask is not.
        let requests: Vec<Input> = std::iter::from_fn(|| inputs.try_recv().ok())
            .filter(|input| matches!(input, Input::Request(..)))
            .collect();
        for request in requests {
            let _ = shared.decider.try_send(request);
        }
        Ok((Stopped { decider }, inputs))
    }
}

impl Stopped {
    /// The next generation, with what this one has learned. `old` is its configuration.
    pub(super) fn rebuild(
        self,
        old: &Config,
        config: &Config,
        shared: &Shared,
        prepared: Prepared,
    ) -> Generation {
        let decider = self.decider;
        let operator = decider.planner.drains().phases().filter(|(_, phase)| is_operators(*phase));
        let operator: BTreeSet<&ServerId> = operator.map(|(server, _)| server).collect();
        let wanted = decider.records.iter().filter(|(server, _)| operator.contains(server));
        let wanted = wanted.map(|(_, record)| record.clone()).collect();
        let own = decider.records.into_iter().map(|(_, record)| record);
        let parts = Parts {
            publish: decider.publish,
            files: decider.files,
            records: own.chain(decider.strays).collect(),
            pause: decider.pause,
            // It is handed over whole, as far as it is of the same instances.
            remembered: Vec::new(),
            wanted,
        };
        let mut generation = Generation::from_parts(config, shared, prepared, parts);
        generation.decider.planner.inherit(decider.planner);
        let same = same_instances(old, config);
        generation.decider.health.inherit(decider.health, |id| same.contains(id));
        generation
    }
}

/// The instances that are the same in both: what was seen of them holds on.
fn same_instances(old: &Config, new: &Config) -> BTreeSet<InstanceId> {
    let place = |database: &Database, instance: &Instance| {
        let target = &instance.target;
        (target.instance.clone(), database.engine, target.endpoint.clone(), target.connect.clone())
    };
    let known: Vec<_> = old.instances().map(|(database, instance)| place(database, instance)).collect();
    let same = new.instances().filter(|(database, instance)| known.contains(&place(database, instance)));
    same.map(|(_, instance)| instance.id().clone()).collect()
}

/// Whether this is a drain that an operator asked for.
fn is_operators(phase: DrainPhase) -> bool {
    matches!(
        phase,
        DrainPhase::Sending { reason: DrainReason::Operator, .. }
            | DrainPhase::Held { reason: DrainReason::Operator, .. }
    )
}

/// What a generation begins with.
struct Parts {
    publish: watch::Sender<Arc<Snapshot>>,
    files: Files,
    records: Vec<DrainRecord>,
    pause: Option<Pause>,
    remembered: Vec<Remembered>,
    /// Drains that an operator asked for and has not taken back.
    wanted: Vec<DrainRecord>,
}

fn files(state_dir: &Path) -> Files {
    Files {
        records: DrainRecords::in_directory(state_dir),
        memory: MemoryFile::in_directory(state_dir),
        pause: PauseFile::in_directory(state_dir),
        disk: Disk::default(),
    }
}

/// The drains on record. A damaged file does not keep the agent from starting: without it, no
/// drain would be looked after either.
fn recorded(
    file: &DrainRecords,
    told: impl Fn(&'static str, &StateError),
) -> Result<Vec<DrainRecord>, StateError> {
    match file.load() {
        Err(error @ StateError::Format { .. }) => {
            told("its drains may be left: what was in it is kept beside it, as `.damaged`", &error);
            file.set_aside()?;
            Ok(Vec::new())
        }
        records => records,
    }
}

/// The operator's pause. A damaged file was written by one: it counts until they say otherwise.
fn paused(file: &PauseFile, told: impl Fn(&'static str, &StateError)) -> Result<Option<Pause>, StateError> {
    match file.load() {
        Err(error @ StateError::Format { .. }) => {
            told("acting is paused until `rds-lb-agent resume`", &error);
            Ok(Some(Pause { since: unix_seconds(), reason: "the file of a pause is damaged".into() }))
        }
        pause => pause,
    }
}

fn database_tasks(
    config: &Config,
    database: &Database,
    sources: Vec<Arc<TokenSource>>,
    shared: &Shared,
    routes: &mut Routes,
    tasks: &mut Vec<Task>,
) -> Result<(), String> {
    let trust = Arc::new(TlsTrust::load(database.trust.clone()).map_err(|error| error.to_string())?);
    let engine = engine::of(database);
    for (instance, tokens) in database.instances.iter().zip(sources) {
        let door = Arc::new(Door {
            target: instance.target.clone(),
            engine: engine.clone(),
            trust: trust.clone(),
            tokens,
            limits: Limits::default(),
            shared: shared.clone(),
            episodes: Mutex::new(Episodes::default()),
            unfinished: engine::blocks_hosts(database)
                .then(|| Mutex::new(Unfinished::new(tokio::time::Instant::now()))),
        });
        tasks.push(Box::pin(probe::run(door.clone(), database.probe_interval)));
        if !database.liveness {
            continue;
        }
        tasks.push(Box::pin(liveness::run(door.clone())));
        if engine::blocks_hosts(database) {
            tasks.push(Box::pin(host_block::run(door.clone())));
        }
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

fn proxy_task(index: usize, proxy: &Proxy, shared: &Shared, routes: &mut Routes, tasks: &mut Vec<Task>) {
    let servers: HashMap<(String, String), ServerId> = proxy
        .servers
        .iter()
        .map(|server| ((server.id.backend.to_string(), server.id.server.to_string()), server.id.clone()))
        .collect();
    let ProxyKind::Haproxy(haproxy) = &proxy.kind else { return };
    let (sender, commands) = mpsc::channel(COMMANDS);
    routes.proxies.insert(index, (sender, proxy.name()));
    let config = admin::Config {
        proxy: index,
        socket: haproxy.socket.clone(),
        master: haproxy.master.clone(),
        servers,
        limits: haproxy::runtime::Limits::default(),
    };
    tasks.push(Box::pin(sweeps::run(config.clone(), shared.clone())));
    tasks.push(Box::pin(admin::run(config, shared.clone(), commands)));
}

/// Records of configured servers, and those that nothing here knows any more.
fn sort_records(
    records: Vec<DrainRecord>,
    config: &Config,
) -> (Vec<(ServerId, DrainRecord)>, Vec<DrainRecord>) {
    let mut known: BTreeMap<(String, String, String), ServerId> = BTreeMap::new();
    for proxy in &config.proxies {
        for server in &proxy.servers {
            let key = (proxy.name(), server.id.backend.to_string(), server.id.server.to_string());
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

/// Takes back the drain of a server that is no longer configured, once.
async fn take_back(record: DrainRecord, shared: Shared) {
    let mut told = false;
    loop {
        match take_back::take_back(&record).await {
            Ok(_) => return shared.tell(Input::StrayGone(record)).await,
            Err(error) if !told => {
                told = true;
                let DrainRecord { backend, server, .. } = &record;
                tracing::warn!(backend, server, error, "drain not taken back yet");
            }
            Err(_) => {}
        }
        tokio::time::sleep(Duration::from_secs(10)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn running(task: impl Future<Output = ()> + Send + 'static) -> Running {
        let mut tasks = JoinSet::new();
        tasks.spawn(async {});
        tasks.spawn(task);
        Running { decider: tokio::spawn(std::future::pending()), tasks, stop: CancellationToken::new() }
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_that_panics_is_noticed_and_one_that_has_done_its_work_is_no_trouble() {
        let patience = Duration::from_secs(1);
        let mut well = running(std::future::pending());
        assert!(tokio::time::timeout(patience, well.broken()).await.is_err());
        let mut ill = running(async { panic!("made up") });
        let said = tokio::time::timeout(patience, ill.broken()).await.unwrap();
        assert!(said.contains("made up"), "{said}");
        ill.abandon().await;
    }

    fn config(user: &str, a: &str, b: &str) -> Config {
        let text = format!(
            "databases:\n  - name: orders\n    engine: postgresql\n    user: {user}\n    region: eu-west-1\n    \
             instances:\n      - {{name: a, endpoint: '{a}:5432'}}\n      - {{name: b, endpoint: '{b}:5432'}}\n"
        );
        crate::config::parse("test", &text).unwrap().config
    }

    const A: &str = "a.abc.eu-west-1.rds.amazonaws.com";
    const B: &str = "b.abc.eu-west-1.rds.amazonaws.com";
    const C: &str = "c.abc.eu-west-1.rds.amazonaws.com";

    #[tokio::test]
    async fn a_reload_keeps_the_tokens_of_targets_that_stay() {
        async fn tokens(config: &Config, before: Option<&Tokens>) -> Tokens {
            let mut tokens = Tokens::new(config, before);
            for (_, instance) in config.instances() {
                tokens.of(instance, before).await.unwrap();
            }
            tokens
        }
        let before = tokens(&config("agent", A, B), None).await;
        let after = tokens(&config("agent", A, C), Some(&before)).await;
        let kept = |place: usize| Arc::ptr_eq(&before.sources[place], &after.sources[place]);
        assert_eq!((kept(0), kept(1)), (true, false));
        let other = tokens(&config("another", A, B), Some(&before)).await;
        assert!(!Arc::ptr_eq(&before.sources[0], &other.sources[0]), "a token is for one user");
    }

    #[test]
    fn an_instance_is_the_same_while_it_is_reached_at_the_same_place() {
        let same = same_instances(&config("agent", A, B), &config("another", A, C));
        assert_eq!(same, BTreeSet::from([InstanceId::new("orders", "a")]));
    }

    #[test]
    fn damaged_files_are_told_and_keep_no_agent_from_starting() {
        let folder = tempfile::tempdir().unwrap();
        let files = files(folder.path());
        for name in ["drains.json", "paused.json"] {
            std::fs::write(folder.path().join(name), "{\"since\":").unwrap();
        }
        let told = std::cell::RefCell::new(Vec::new());
        let tell = |_: &'static str, error: &StateError| told.borrow_mut().push(error.to_string());
        assert_eq!(recorded(&files.records, tell).unwrap(), []);
        assert!(folder.path().join("drains.json.damaged").exists());
        assert_eq!(recorded(&files.records, tell).unwrap(), [], "the next start is as any");
        assert!(paused(&files.pause, tell).unwrap().is_some());
        assert!(paused(&files.pause, tell).unwrap().is_some(), "after another start, too");
        files.pause.store(None).unwrap();
        assert_eq!(paused(&files.pause, tell).unwrap(), None, "resumed");
        assert_eq!(told.borrow().len(), 3, "{told:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_decider_that_is_gone_is_noticed() {
        let mut ill = running(std::future::pending());
        ill.decider.abort();
        let said = tokio::time::timeout(Duration::from_secs(1), ill.broken()).await.unwrap();
        assert!(said.contains("cancelled"), "{said}");
        ill.abandon().await;
    }
}
