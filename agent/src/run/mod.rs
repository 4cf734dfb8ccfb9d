//! The agent itself: listeners that outlive reloads, and generations of tasks
//! between them.
//!
//! - [`generation`]: all tasks of one configuration. [`envoy`]: those of its Envoys.
//! - [`watch`]: when to look at the files again, and when to stop.
//! - [`authorities`]: the files that a configuration names.
//! - [`logging`]: lines on standard error. [`collapse`]: not too many of one kind.

mod authorities;
mod collapse;
mod envoy;
mod generation;
mod logging;
mod watch;

use std::{
    io,
    net::SocketAddr,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use haproxy::agent_check;
use tokio::{
    net::TcpListener,
    sync::{Notify, mpsc},
    task::JoinSet,
};
use tokio_util::task::AbortOnDropHandle;

use crate::{
    api::{bounded::Bounded, control, http},
    clock::Clock,
    config::{self, Config, Place, Problems},
    events::{AgentBroken, ConfigRefused, ConfigTaken, Event, Started, StateFailed, Stopping},
    messages::Input,
    metrics::Metrics,
    proxies::{
        envoy::{checks, discovery::Envoys},
        haproxy::{agent_check::Answers, take_back},
    },
    shared::{Errands, Shared, SharedBudget},
    snapshot::Snapshot,
    state::{StateError, StateLock, records::DrainRecords},
};
use authorities::Authorities;
use collapse::Collapse;
use generation::{Generation, Prepared, Tokens};
use watch::{Signal, Signals};

/// Inputs that may wait for the decider.
const INPUTS: usize = 4_096;

/// The agent could not start.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The configuration is wrong.
    #[error("{0}")]
    Config(#[from] Problems),
    /// The configuration is right, and something it names is not.
    #[error("{0}")]
    Setup(String),
    /// The state directory cannot be used.
    #[error("{0}")]
    State(#[from] StateError),
    /// A part of it has ended that never should. Whoever supervises it starts it again.
    #[error("{0}: this is a fault of the agent's own, please report it; it has to be started again")]
    Broken(String),
    /// A listener cannot be opened.
    #[error(
        "cannot listen on {address} for {purpose}: {source}; choose another under `listen`, or stop what holds it"
    )]
    Listen {
        /// Where.
        address: String,
        /// What for.
        purpose: &'static str,
        /// The system's words.
        #[source]
        source: io::Error,
    },
}

/// Runs until a signal says stop.
///
/// # Errors
/// When it cannot start. Recorded drains have been taken back by then.
pub async fn run(path: &Path) -> Result<(), RunError> {
    let loaded = match config::load(path) {
        Ok(loaded) => loaded,
        Err(problems) => {
            // Nothing will look after them: a refused start must not leave a drain behind.
            let state_dir = state_dir_of(path);
            let lock = state_dir.exists().then(|| StateLock::acquire(&state_dir));
            // Unless another agent does: those are its own.
            if !matches!(lock, Some(Err(StateError::Locked { .. }))) {
                take_back(&state_dir).await;
            }
            return Err(problems.into());
        }
    };
    let collapse = logging::start(&loaded.config.log);
    for warning in &loaded.warnings {
        tracing::warn!(
            line = warning.line,
            column = warning.column,
            hint = warning.hint,
            "{}",
            warning.message
        );
    }
    let lock = StateLock::acquire(&loaded.config.state_dir)?;
    let result = serve(path, loaded.config.clone(), collapse).await;
    // On every way out, a failed start included.
    take_back(&loaded.config.state_dir).await;
    drop(lock);
    result
}

async fn serve(path: &Path, mut config: Config, collapse: Collapse) -> Result<(), RunError> {
    let clock = Clock::start();
    let metrics = Arc::new(Metrics::default());
    let _reports = AbortOnDropHandle::new(tokio::spawn(collapse.report(metrics.clone())));
    let (publish, snapshot) = tokio::sync::watch::channel(Arc::new(Snapshot::empty(clock.now())));
    let (decider, mut inputs) = mpsc::channel::<Input>(INPUTS);
    let shared = Shared {
        clock,
        metrics: metrics.clone(),
        budget: SharedBudget::new(&config.sessions),
        snapshot,
        decider,
        probe_now: Arc::new(Notify::new()),
        errands: Errands::default(),
        envoys: Envoys::new(metrics.clone()),
    };
    envoy::begin(&config, &shared);
    let mut listeners = Listeners::open(&config, &shared).await?;
    let mut signals = Signals::listen(path).map_err(|error| RunError::Setup(error.to_string()))?;
    // Before they are used: what changes in between is seen at the next look.
    let mut authorities = Authorities::of(&config);
    signals.follow(&authorities.folders());
    let prepared = Prepared::new(&config, &shared, None).await.map_err(RunError::Setup)?;
    let mut tokens = prepared.tokens.clone();
    let mut generation = Generation::build(&config, &shared, publish, prepared).map_err(RunError::Setup)?;
    Started {
        version: env!("CARGO_PKG_VERSION"),
        config: &path.display().to_string(),
        mode: &format!("{:?}", config.sessions.mode).to_lowercase(),
        instances: config.instances().count(),
        servers: config.servers().len(),
    }
    .emit(&metrics);
    let mut refused = None;
    loop {
        let mut running = generation.start(inputs);
        let next = loop {
            let signal = tokio::select! {
                signal = signals.next() => signal,
                what = running.broken() => {
                    AgentBroken { error: &what }.emit(&metrics);
                    shared.envoys.take_back().await;
                    listeners.close().await;
                    running.abandon().await;
                    return Err(RunError::Broken(what));
                }
                what = listeners.broken() => {
                    AgentBroken { error: &what }.emit(&metrics);
                    shared.envoys.take_back().await;
                    listeners.close().await;
                    running.abandon().await;
                    return Err(RunError::Broken(what));
                }
            };
            if signal == Signal::Reload {
                // Who asks is answered, whatever was said before.
                refused = None;
            }
            match signal {
                Signal::Stop(reason) => break Err(reason),
                Signal::Look | Signal::Reload => {
                    let now = (&config, &authorities, &tokens);
                    let taken = take(path, now, &mut listeners, &shared, &mut refused).await;
                    if let Some(taken) = taken {
                        authorities = taken.authorities;
                        signals.follow(&authorities.folders());
                        break Ok((taken.config, taken.prepared));
                    }
                }
            }
        };
        let (stopped, rest) = running.stop(&shared).await.map_err(RunError::Broken)?;
        inputs = rest;
        let (new, prepared) = match next {
            Ok(taken) => taken,
            Err(reason) => {
                Stopping { reason }.emit(&metrics);
                shared.envoys.take_back().await;
                listeners.close().await;
                return Ok(());
            }
        };
        metrics.forget_states();
        let old = std::mem::replace(&mut config, new);
        tokens = prepared.tokens.clone();
        generation = stopped.rebuild(&old, &config, &shared, prepared);
        shared.budget.follow(&config.sessions);
        ConfigTaken { config: &path.display().to_string() }.emit(&metrics);
    }
}

/// A configuration that can be used as a whole.
struct Taken {
    config: Config,
    authorities: Authorities,
    prepared: Prepared,
}

/// The new configuration, if there is one and it can be used as a whole. `refused` is
/// why the last one was not: the folder changes for other reasons too, a log in it for
/// one, and the same refusal is told once.
async fn take(
    path: &Path,
    (old, known, tokens): (&Config, &Authorities, &Tokens),
    listeners: &mut Listeners,
    shared: &Shared,
    refused: &mut Option<String>,
) -> Option<Taken> {
    let before = refused.take();
    let mut refuse = |error: String| {
        if before.as_ref() != Some(&error) {
            ConfigRefused { config: &path.display().to_string(), error: &error }.emit(&shared.metrics);
        }
        *refused = Some(error);
        None
    };
    let new = match config::load(path) {
        Ok(loaded) => loaded.config,
        Err(problems) => return refuse(problems.brief()),
    };
    let authorities = Authorities::of(&new);
    if new == *old && authorities == *known {
        return None;
    }
    if new.state_dir != old.state_dir {
        return refuse("`state_dir` changes only with a restart".into());
    }
    // What can fail is tried before anything that works is stopped.
    let prepared = match Prepared::new(&new, shared, Some(tokens)).await {
        Ok(prepared) => prepared,
        Err(error) => return refuse(error),
    };
    if new.listen != old.listen {
        match listeners.reopen(&new, shared).await {
            Ok(()) => {}
            Err(error) => return refuse(error.to_string()),
        }
    }
    Some(Taken { config: new, authorities, prepared })
}

/// Takes recorded drains back, and says what became of them.
async fn take_back(state_dir: &Path) {
    let metrics = Metrics::default();
    match take_back::own(&DrainRecords::in_directory(state_dir)).await {
        Ok(undone) => {
            for server in &undone.taken_back {
                tracing::info!(server, "drain taken back");
            }
            for (server, error) in &undone.failed {
                tracing::error!(server, error, "drain not taken back; its record stays for the next start");
            }
        }
        Err(error) => {
            let consequence = "drains of the agent's own may be left: see `rds-lb-agent undrain --own`";
            StateFailed { consequence, error: error.to_string() }.emit(&metrics);
        }
    }
}

/// The state directory of a file that may be wrong in any other place.
pub fn state_dir_of(path: &Path) -> PathBuf {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let named = text.lines().find_map(|line| line.strip_prefix("state_dir:"));
    let named = named.map(|value| value.split(" #").next().unwrap_or(value).trim().trim_matches(['"', '\'']));
    named.filter(|value| value.starts_with('/')).unwrap_or("/var/lib/rds-lb-agent").into()
}

/// The open ports. They outlive reloads: an answer from the last snapshot is
/// better than a refused connection.
struct Listeners {
    tasks: JoinSet<()>,
    /// All that were ever opened: a configuration may go back to one of them.
    checks: Vec<SocketAddr>,
    web: Vec<SocketAddr>,
    envoy: Vec<Place>,
    control: Vec<PathBuf>,
}

impl Listeners {
    async fn open(config: &Config, shared: &Shared) -> Result<Self, RunError> {
        let mut listeners = Self {
            tasks: JoinSet::new(),
            checks: vec![config.listen.agent_check],
            web: vec![config.listen.http],
            envoy: config.listen.envoy.iter().cloned().collect(),
            control: vec![config.listen.control.clone()],
        };
        let checks = bind(config.listen.agent_check, "agent checks").await?;
        let web = bind(config.listen.http, "HTTP").await?;
        let socket = bind_control(&config.listen.control)?;
        if let Some(place) = &config.listen.envoy {
            listeners.serve_envoys(bind_envoy(place).await?, shared);
        }
        listeners.serve_checks(checks, shared);
        listeners.serve_http(web, shared);
        listeners.serve_control(socket, shared);
        Ok(listeners)
    }

    /// Opens what is not open yet. The old ports go on answering: a proxy may be
    /// reloaded later than the agent.
    async fn reopen(&mut self, config: &Config, shared: &Shared) -> Result<(), RunError> {
        let new = |known: bool, address, purpose| async move {
            if known { Ok(None) } else { bind(address, purpose).await.map(Some) }
        };
        let to = &config.listen;
        let checks = new(self.checks.contains(&to.agent_check), to.agent_check, "agent checks").await?;
        let web = new(self.web.contains(&to.http), to.http, "HTTP").await?;
        let envoy = match to.envoy.clone().filter(|place| !self.envoy.contains(place)) {
            Some(place) => Some((bind_envoy(&place).await?, place)),
            None => None,
        };
        let known = self.control.contains(&to.control);
        let socket = if known { None } else { Some(bind_control(&to.control)?) };
        if let Some(listener) = checks {
            self.serve_checks(listener, shared);
            self.checks.push(to.agent_check);
        }
        if let Some(listener) = web {
            self.serve_http(listener, shared);
            self.web.push(to.http);
        }
        if let Some((listener, place)) = envoy {
            self.serve_envoys(listener, shared);
            self.envoy.push(place);
        }
        if let Some(listener) = socket {
            self.serve_control(listener, shared);
            self.control.push(to.control.clone());
        }
        Ok(())
    }

    fn serve_checks(&mut self, listener: TcpListener, shared: &Shared) {
        let answers = Answers::new(shared.snapshot.clone(), shared.decider.clone(), &shared.metrics)
            .fresh_by(shared.clock);
        self.tasks.spawn(agent_check::serve(listener, Arc::new(answers), agent_check::Limits::default()));
    }

    fn serve_http(&mut self, listener: TcpListener, shared: &Shared) {
        let router = http::router(source(shared)).merge(checks::router(checks_of(shared)));
        self.tasks.spawn(async move {
            if let Err(error) = axum::serve(Bounded::new(listener), router).await {
                tracing::error!(%error, "HTTP stopped");
            }
        });
    }

    fn serve_envoys(&mut self, listener: ::envoy::serve::Listener, shared: &Shared) {
        let services = shared.envoys.services(checks_of(shared));
        self.tasks.spawn(::envoy::serve::serve(listener, services, ::envoy::serve::Limits::default()));
    }

    fn serve_control(&mut self, listener: tokio::net::UnixListener, shared: &Shared) {
        let router = control::router(shared.decider.clone()).merge(http::router(source(shared)));
        self.tasks.spawn(async move {
            if let Err(error) = axum::serve(Bounded::new(listener), router).await {
                tracing::error!(%error, "control socket stopped");
            }
        });
    }

    /// Resolves when one has ended: none does by itself.
    async fn broken(&mut self) -> String {
        match self.tasks.join_next().await {
            Some(Err(error)) => error.to_string(),
            _ => "a listener ended".into(),
        }
    }

    async fn close(mut self) {
        self.tasks.shutdown().await;
        // They are the agent's own: a left-over socket only puzzles people.
        let envoy = self.envoy.iter().filter_map(|place| match place {
            Place::Unix(path) => Some(path),
            Place::Tcp(_) => None,
        });
        for socket in self.control.iter().chain(envoy) {
            let _ = std::fs::remove_file(socket);
        }
    }
}

fn source(shared: &Shared) -> http::Source {
    http::Source {
        snapshot: shared.snapshot.clone(),
        metrics: shared.metrics.clone(),
        clock: shared.clock,
        envoys: shared.envoys.clone(),
    }
}

fn checks_of(shared: &Shared) -> checks::Answers {
    let snapshot = shared.snapshot.clone();
    checks::Answers::new(&shared.envoys, shared.clock, Arc::new(move || snapshot.borrow().at))
}

async fn bind_envoy(place: &Place) -> Result<::envoy::serve::Listener, RunError> {
    let listen = |source| RunError::Listen { address: place.to_string(), purpose: "Envoy", source };
    match place {
        // Envoy has a user of its own: it reaches the agent by the group of the folder.
        Place::Unix(path) => {
            let listener = control::bind(path).map_err(listen)?;
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660)).map_err(listen)?;
            Ok(listener.into())
        }
        Place::Tcp(address) => TcpListener::bind(address).await.map(Into::into).map_err(listen),
    }
}

async fn bind(address: SocketAddr, purpose: &'static str) -> Result<TcpListener, RunError> {
    let listen = |source| RunError::Listen { address: address.to_string(), purpose, source };
    TcpListener::bind(address).await.map_err(listen)
}

fn bind_control(path: &Path) -> Result<tokio::net::UnixListener, RunError> {
    let listen =
        |source| RunError::Listen { address: path.display().to_string(), purpose: "control", source };
    control::bind(path).map_err(listen)
}
