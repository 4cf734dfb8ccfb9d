//! Starts the agent, runs its main loop, and leaves no drain behind on any way out.

use std::{path::Path, sync::Arc};

use tokio::sync::{mpsc, watch};
use tokio_util::task::AbortOnDropHandle;

use super::{
    RunError,
    authorities::Authorities,
    envoy,
    generation::Generation,
    listeners::Listeners,
    logging::Logging,
    records::{End, release_all, write_state_files},
    reload::{InForce, Reload},
    supervisor,
    tasks::{Prepared, logs},
    watch::{Signal, Signals},
};
use crate::{
    clock::Clock,
    config::{self, Config},
    events::{AgentBroken, ConfigTaken, Event, Started, StateFailed, Stopping},
    messages::Input,
    metrics::{Metrics, labels::Word},
    proxies::envoy::discovery::Envoys,
    shared::Shared,
    snapshot::Snapshot,
    state::{StateError, StateLock},
};

/// Messages that may wait for the decider.
const INPUTS: usize = 4_096;

/// Runs until a signal stops it.
///
/// # Errors
/// When the agent cannot start, or a part of it failed. Recorded drains have been taken back then.
pub async fn run(path: &Path) -> Result<(), RunError> {
    let loaded = match config::load(path) {
        Ok(loaded) => loaded,
        Err(problems) => {
            // No agent will look after recorded drains, so a refused start must not leave any behind,
            // unless another agent with the same state directory is running: then they are its own.
            let state_dir = config::state_dir(path);
            let lock = state_dir.exists().then(|| StateLock::acquire(&state_dir));
            if !matches!(lock, Some(Err(StateError::Locked { .. }))) {
                release_all(&state_dir, End::Stop).await;
            }
            return Err(problems.into());
        }
    };
    let logging = Logging::start(&loaded.config.log);
    for warning in &loaded.warnings.problems {
        tracing::warn!(
            line = warning.line,
            column = warning.column,
            hint = warning.hint,
            "{}",
            warning.message
        );
    }
    let lock = StateLock::acquire(&loaded.config.state_dir)?;
    let result = serve(path, loaded.config.clone(), logging).await;
    release_all(&loaded.config.state_dir, *result.as_ref().unwrap_or(&End::Stop)).await;
    for error in write_state_files(&loaded.config).await {
        let consequence = "HAProxy starts with an old state if it is restarted without an agent";
        StateFailed { consequence, error }.emit(&Metrics::default());
    }
    drop(lock);
    result.map(drop)
}

async fn serve(path: &Path, config: Config, logging: Logging) -> Result<End, RunError> {
    let clock = Clock::start();
    let metrics = Arc::new(Metrics::default());
    let _reports = AbortOnDropHandle::new(tokio::spawn(logging.collapse.clone().report(metrics.clone())));
    let (publish, snapshot) = watch::channel(Arc::new(Snapshot::empty(clock.now())));
    let (decider, mut inputs) = mpsc::channel::<Input>(INPUTS);
    let shared = Shared {
        recent: logging.recent.clone(),
        ..Shared::new(clock, metrics.clone(), &config.sessions, snapshot, decider)
    };
    let _delays = AbortOnDropHandle::new(tokio::spawn(shared.starvation.clone().measure()));
    let watchdog = supervisor::watchdog(clock, shared.snapshot.clone());
    let _watchdog = AbortOnDropHandle::new(tokio::spawn(watchdog));
    let envoys = Envoys::new(metrics.clone());
    envoy::begin(&config, &envoys, &shared);
    // Before the first answer: a signal to an agent that answers must not find the default action, which kills.
    let mut signals = Signals::listen(path).map_err(|error| RunError::Setup(error.to_string()))?;
    let mut listeners = Listeners::open(&config, &envoys, &shared).await?;
    // Read before the tasks use the files: a change in between is noticed at the next reload.
    let authorities = Authorities::of(&config);
    signals.follow(&authorities.folders());
    let prepared = Prepared::new(&config, &envoys, &shared, None);
    let logins = prepared.logins.clone();
    listeners.offer(&config, &logins.chain);
    let mut generation = Generation::first(&config, &shared, publish, prepared).map_err(RunError::Setup)?;
    Started {
        version: env!("CARGO_PKG_VERSION"),
        config: &path.display().to_string(),
        mode: &Word::of(&config.sessions.mode).to_string(),
        instances: config.instances().count(),
        servers: config.servers().len(),
    }
    .emit(&metrics);
    supervisor::ready();
    let mut in_force = InForce { config, authorities, logins };
    let mut reload = Reload::new(path, envoys.clone());
    loop {
        let mut running = generation.start(inputs);
        let next = loop {
            let event = tokio::select! {
                signal = signals.next() => Ok(signal),
                error = running.failed() => Err(error),
                error = listeners.failed() => Err(error),
            };
            match event {
                Ok(Signal::Stop(reason)) => break Err((reason, End::Stop)),
                Ok(Signal::HandOver(reason)) => break Err((reason, End::HandOver)),
                Ok(Signal::FilesChanged) => {}
                Ok(Signal::Reload) => reload.report_again(),
                Err(error) => {
                    AgentBroken { error: &error }.emit(&metrics);
                    // The tasks first: one of them would send a drain again.
                    running.abandon().await;
                    envoys.take_back().await;
                    listeners.close().await;
                    return Err(RunError::Internal(error));
                }
            }
            if let Some(changed) = reload.changed(&in_force, &mut listeners, &shared).await {
                break Ok(changed);
            }
        };
        if let Err((reason, _)) = &next {
            Stopping { reason }.emit(&metrics);
            supervisor::stopping().await;
        }
        let last_word = matches!(next, Err((_, End::Stop))).then_some(&envoys);
        let (stopped, rest) = running.stop(&shared, last_word).await.map_err(RunError::Internal)?;
        inputs = rest;
        let changed = match next {
            Ok(changed) => changed,
            Err((_, end)) => {
                let end = if signals.stop_is_waiting() { End::Stop } else { end };
                envoys.take_back().await;
                listeners.close().await;
                return Ok(end);
            }
        };
        metrics.forget_states();
        let compared = |name: &str| {
            let mut databases = changed.config.databases.iter();
            databases.any(|database| database.name == name && database.topology.is_some())
        };
        shared.topologies.keep(compared);
        let logins = changed.prepared.logins.clone();
        listeners.offer(&changed.config, &logins.chain);
        let new = InForce { config: changed.config, authorities: changed.authorities, logins };
        let old = std::mem::replace(&mut in_force, new);
        signals.follow(&in_force.authorities.folders());
        generation = stopped.next(&old.config, &in_force.config, &shared, changed.prepared);
        let (proxies, addresses) = logs(&in_force.config);
        shared.hand_offs.keep_logs(&proxies, &addresses);
        shared.budget.follow(&in_force.config.sessions);
        logging.follow(&old.config.log, &in_force.config.log);
        ConfigTaken { config: &path.display().to_string() }.emit(&metrics);
    }
}
