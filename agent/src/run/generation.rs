//! A generation: the decider and all tasks of one configuration.
//!
//! A reload stops one generation and starts the next. The next inherits the health of unchanged
//! instances, the breaker, the operator's pause and the drain records: the agent's own drains are taken back,
//! operators' drains go on. Everything else starts anew, the ledger of sessions too.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use agent_core::{
    InstanceId,
    health::{FleetConfig, Health, Remembered},
    plan::Planner,
    session::Ledger,
};
use tokio::{
    sync::{mpsc, watch},
    task::{JoinHandle, JoinSet},
};
use tokio_util::sync::CancellationToken;

use super::{
    Task,
    records::{self, lift_stray, load_drains, load_pause, split_downs, split_records, take_back_stray},
    tasks::Prepared,
};
use crate::{
    config::{Config, Database, Instance, ProxyKind},
    decider::{Decider, Files},
    events::{Event, PauseChanged, StateFailed},
    messages::Input,
    proxies::envoy::discovery::Envoys,
    shared::Shared,
    snapshot::{ProxySetup, Setup, Snapshot},
    state::{StateError, downs::DownRecord, pause::Pause, records::DrainRecord},
};

/// How long a stop waits for commands in progress, so that a drain or a close is not cut off between its
/// effect and its record. Longer than the timeouts of a command to HAProxy (5 s), of a write to a state
/// file (3 s) and of a query (2 s).
const GRACE: Duration = Duration::from_secs(6);

/// All tasks of one configuration, not started.
pub(super) struct Generation {
    decider: Decider,
    tasks: Vec<Task>,
}

pub(super) struct Running {
    decider: JoinHandle<(Decider, mpsc::Receiver<Input>)>,
    tasks: JoinSet<()>,
    stop: CancellationToken,
}

/// A stopped generation; the decider keeps what it learned.
pub(super) struct Stopped {
    decider: Decider,
}

/// What a generation starts with.
struct Parts {
    publish: watch::Sender<Arc<Snapshot>>,
    files: Files,
    records: Vec<DrainRecord>,
    downs: Vec<DownRecord>,
    pause: Option<Pause>,
    remembered: Vec<Remembered>,
}

// === impl Generation ===

impl Generation {
    /// The first generation, from the state directory.
    pub(super) fn first(
        config: &Config,
        shared: &Shared,
        publish: watch::Sender<Arc<Snapshot>>,
        prepared: Prepared,
    ) -> Result<Self, String> {
        let files = records::files(&config.state_dir);
        let report = |consequence: &'static str, error: &StateError| {
            StateFailed { consequence, error: error.to_string() }.emit(&shared.metrics);
        };
        let remembered = files.memory.load().unwrap_or_else(|error| {
            report("answers are neutral until the first probes", &error);
            Vec::new()
        });
        let records = load_drains(&files.records, report).map_err(|error| error.to_string())?;
        let pause = load_pause(&files.pause, report).map_err(|error| error.to_string())?;
        if let Some(pause) = &pause {
            PauseChanged { paused: true, reason: &pause.reason, by: pause.by.as_deref() }
                .emit(&shared.metrics);
        }
        let downs = files.downs.load().unwrap_or_else(|error| {
            report("servers that an earlier agent left DOWN are not lifted", &error);
            Vec::new()
        });
        let parts = Parts { publish, files, records, downs, pause, remembered };
        Ok(Self::from_parts(config, shared, prepared, parts))
    }

    fn from_parts(config: &Config, shared: &Shared, prepared: Prepared, parts: Parts) -> Self {
        let servers = config.servers();
        let ids = config.instances().map(|(_, instance)| instance.id());
        shared.metrics.begin(&config.sessions.mode, ids, &servers);
        let fleet = FleetConfig {
            instances: config
                .instances()
                .map(|(database, instance)| (instance.id().clone(), database.rules.clone()))
                .collect(),
            servers: servers.clone(),
            routing: config.routing,
        };
        let Prepared { routes, mut tasks, .. } = prepared;
        let (records, strays) = split_records(parts.records, config);
        for stray in strays.clone() {
            tasks.push(Box::pin(take_back_stray(stray, shared.clone())));
        }
        let (left_down, stray_downs) = split_downs(parts.downs.clone(), config);
        for stray in stray_downs.clone() {
            tasks.push(Box::pin(lift_stray(stray, shared.clone())));
        }
        let mut health = Health::new(fleet, &parts.remembered);
        health.observe_left_down(left_down, shared.clock.now());
        let decider = Decider {
            health,
            ledger: Ledger::new(&servers),
            planner: Planner::new(config.sessions.clone(), &servers),
            routes,
            shared: shared.clone(),
            publish: parts.publish,
            files: parts.files,
            records,
            strays,
            downs: parts.downs,
            stray_downs,
            pause: parts.pause,
            remembered: parts.remembered,
            setup: Arc::new(setup(config)),
        };
        Self { decider, tasks }
    }

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

// === impl Running ===

impl Running {
    /// Resolves with the error when a task panics or the decider ends. Without a part of its tasks
    /// the agent would go on answering from old evidence.
    pub(super) async fn failed(&mut self) -> String {
        loop {
            let ended = tokio::select! {
                ended = &mut self.decider => {
                    return ended.err().map_or_else(|| "the decider ended".into(), |error| error.to_string());
                }
                Some(ended) = self.tasks.join_next() => ended,
            };
            // Some tasks end by themselves, such as taking back a drain.
            if let Err(error) = ended {
                return error.to_string();
            }
        }
    }

    /// Stops the rest of a failed generation. Drains stay recorded.
    pub(super) async fn abandon(mut self) {
        self.stop.cancel();
        self.tasks.shutdown().await;
        // The decider itself may be what failed. Otherwise it ends once its last write to disk returns
        // or times out.
        if !self.decider.is_finished() && tokio::time::timeout(GRACE, &mut self.decider).await.is_err() {
            self.decider.abort();
        }
    }

    /// Stops all tasks. Drains stay in force and recorded. With `last_word`, these are the last answers of
    /// this process: no server is kept down any more, except for its role.
    pub(super) async fn stop(
        mut self,
        shared: &Shared,
        last_word: Option<&Envoys>,
    ) -> Result<(Stopped, mpsc::Receiver<Input>), String> {
        // The decider first, then the tasks that execute its commands, so that no command is lost.
        self.stop.cancel();
        let (mut decider, mut inputs) = self.decider.await.map_err(|error| error.to_string())?;
        let rest = shared.ongoing.rest(GRACE).await;
        if let Some(envoys) = last_word {
            // What is down now is recorded first: its proxies may need more than an answer. The disk was
            // reported if it fails.
            let _ = decider.store_downs().await;
            // A task publishes it to the Envoys.
            envoys.published_since(decider.release()).await;
        }
        self.tasks.shutdown().await;
        drop(rest);
        // Observations refer to the old configuration and are dropped. Operators' requests do not.
        let requests: Vec<Input> = std::iter::from_fn(|| inputs.try_recv().ok())
            .filter(|input| matches!(input, Input::Request(..)))
            .collect();
        for request in requests {
            let _ = shared.decider.try_send(request);
        }
        Ok((Stopped { decider }, inputs))
    }
}

// === impl Stopped ===

impl Stopped {
    /// The next generation, with what this one learned. `old` is the configuration of this one.
    pub(super) fn next(
        self,
        old: &Config,
        config: &Config,
        shared: &Shared,
        prepared: Prepared,
    ) -> Generation {
        let decider = self.decider;
        let downs = decider.down_records();
        let own = decider.records.into_iter().map(|(_, record)| record);
        let parts = Parts {
            publish: decider.publish,
            files: decider.files,
            records: own.chain(decider.strays).collect(),
            downs,
            pause: decider.pause,
            // Health of unchanged instances is handed over as a whole, below.
            remembered: Vec::new(),
        };
        let mut generation = Generation::from_parts(config, shared, prepared, parts);
        generation.decider.planner.inherit(decider.planner);
        let same = same_instances(old, config);
        generation.decider.health.inherit(decider.health, |id| same.contains(id));
        generation
    }
}

fn setup(config: &Config) -> Setup {
    let proxy = |proxy: &crate::config::Proxy| ProxySetup {
        name: proxy.name(),
        envoy: match &proxy.kind {
            ProxyKind::Haproxy(_) => None,
            ProxyKind::Envoy(envoy) => Some(envoy.node.clone()),
        },
        servers: proxy.servers.clone(),
    };
    Setup {
        mode: config.sessions.mode,
        routing: config.routing,
        max_age: config.sessions.max_age,
        proxies: config.proxies.iter().map(proxy).collect(),
    }
}

/// The instances that are the same in both configurations, so that observations of them stay valid.
fn same_instances(old: &Config, new: &Config) -> BTreeSet<InstanceId> {
    let identity = |database: &Database, instance: &Instance| {
        let target = &instance.target;
        (target.instance.clone(), database.engine, target.endpoint.clone(), target.connect.clone())
    };
    let known: Vec<_> = old.instances().map(|(database, instance)| identity(database, instance)).collect();
    let same = new.instances().filter(|(database, instance)| known.contains(&identity(database, instance)));
    same.map(|(_, instance)| instance.id().clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::testing::{A, B, C, config};

    fn running(task: impl Future<Output = ()> + Send + 'static) -> Running {
        let mut tasks = JoinSet::new();
        tasks.spawn(async {});
        tasks.spawn(task);
        Running { decider: tokio::spawn(std::future::pending()), tasks, stop: CancellationToken::new() }
    }

    #[tokio::test(start_paused = true)]
    async fn a_panic_in_a_task_is_noticed_and_a_task_that_ends_is_not_a_failure() {
        let deadline = Duration::from_secs(1);
        let mut healthy = running(std::future::pending());
        assert!(tokio::time::timeout(deadline, healthy.failed()).await.is_err());
        let mut broken = running(async { panic!("made up") });
        let error = tokio::time::timeout(deadline, broken.failed()).await.unwrap();
        assert!(error.contains("made up"), "{error}");
        broken.abandon().await;
    }

    #[test]
    fn an_instance_is_the_same_if_its_endpoint_and_address_are() {
        let same = same_instances(&config("agent", A, B), &config("another", A, C));
        assert_eq!(same, BTreeSet::from([InstanceId::new("orders", "a")]));
    }

    #[tokio::test(start_paused = true)]
    async fn the_end_of_the_decider_is_noticed() {
        let mut broken = running(std::future::pending());
        broken.decider.abort();
        let error = tokio::time::timeout(Duration::from_secs(1), broken.failed()).await.unwrap();
        assert!(error.contains("cancelled"), "{error}");
        broken.abandon().await;
    }
}
