//! The agent's ports and sockets. They outlive reloads: an answer from the last snapshot is better
//! than a refused connection.

use std::{
    net::SocketAddr,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use haproxy::agent_check;
use tokio::{
    net::{TcpListener, UnixListener},
    task::JoinSet,
};

use super::RunError;
use crate::{
    api::{bounded::Bounded, control, http},
    config::{Address, Config},
    proxies::{envoy::checks, haproxy::agent_check::Answers},
    shared::Shared,
};

pub(super) struct Listeners {
    tasks: JoinSet<()>,
    /// Every address opened so far; a later configuration may return to one of them.
    agent_checks: Vec<SocketAddr>,
    http: Vec<SocketAddr>,
    envoy: Vec<Address>,
    control: Vec<PathBuf>,
}

impl Listeners {
    pub(super) async fn open(config: &Config, shared: &Shared) -> Result<Self, RunError> {
        let mut listeners = Self {
            tasks: JoinSet::new(),
            agent_checks: vec![config.listen.agent_check],
            http: vec![config.listen.http],
            envoy: config.listen.envoy.iter().cloned().collect(),
            control: vec![config.listen.control.clone()],
        };
        let checks = bind(config.listen.agent_check, "agent checks").await?;
        let http = bind(config.listen.http, "HTTP").await?;
        let control = bind_control(&config.listen.control)?;
        if let Some(address) = &config.listen.envoy {
            listeners.serve_envoys(bind_envoy(address).await?, shared);
        }
        listeners.serve_checks(checks, shared);
        listeners.serve_http(http, shared);
        listeners.serve_control(control, shared);
        Ok(listeners)
    }

    /// Opens the addresses that are not open yet. Earlier ones stay open: the proxy may be reloaded
    /// later than the agent.
    pub(super) async fn reopen(&mut self, config: &Config, shared: &Shared) -> Result<(), RunError> {
        let new = |open: bool, address, purpose| async move {
            if open { Ok(None) } else { bind(address, purpose).await.map(Some) }
        };
        let listen = &config.listen;
        let checks =
            new(self.agent_checks.contains(&listen.agent_check), listen.agent_check, "agent checks").await?;
        let http = new(self.http.contains(&listen.http), listen.http, "HTTP").await?;
        let envoy = match listen.envoy.clone().filter(|address| !self.envoy.contains(address)) {
            Some(address) => Some((bind_envoy(&address).await?, address)),
            None => None,
        };
        let open = self.control.contains(&listen.control);
        let control = if open { None } else { Some(bind_control(&listen.control)?) };
        if let Some(listener) = checks {
            self.serve_checks(listener, shared);
            self.agent_checks.push(listen.agent_check);
        }
        if let Some(listener) = http {
            self.serve_http(listener, shared);
            self.http.push(listen.http);
        }
        if let Some((listener, address)) = envoy {
            self.serve_envoys(listener, shared);
            self.envoy.push(address);
        }
        if let Some(listener) = control {
            self.serve_control(listener, shared);
            self.control.push(listen.control.clone());
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
                tracing::error!(%error, "HTTP listener failed");
            }
        });
    }

    fn serve_envoys(&mut self, listener: ::envoy::serve::Listener, shared: &Shared) {
        let services = shared.envoys.services(checks_of(shared));
        self.tasks.spawn(::envoy::serve::serve(listener, services, ::envoy::serve::Limits::default()));
    }

    fn serve_control(&mut self, listener: UnixListener, shared: &Shared) {
        let router = control::router(shared.decider.clone()).merge(http::router(source(shared)));
        self.tasks.spawn(async move {
            if let Err(error) = axum::serve(Bounded::new(listener), router).await {
                tracing::error!(%error, "control socket failed");
            }
        });
    }

    /// Resolves with the error when a listener ends, which none does by itself.
    pub(super) async fn failed(&mut self) -> String {
        match self.tasks.join_next().await {
            Some(Err(error)) => error.to_string(),
            _ => "a listener ended".into(),
        }
    }

    pub(super) async fn close(mut self) {
        self.tasks.shutdown().await;
        // A Unix socket outlives its listener; without an agent it only misleads.
        let envoy = self.envoy.iter().filter_map(|address| match address {
            Address::Unix(path) => Some(path),
            Address::Tcp(_) => None,
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

async fn bind_envoy(address: &Address) -> Result<::envoy::serve::Listener, RunError> {
    let listen = |source| RunError::Listen { address: address.to_string(), purpose: "Envoy", source };
    match address {
        // Envoy runs as another user and gets access by the group of the directory.
        Address::Unix(path) => {
            let listener = control::bind(path).map_err(listen)?;
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660)).map_err(listen)?;
            Ok(listener.into())
        }
        Address::Tcp(address) => TcpListener::bind(address).await.map(Into::into).map_err(listen),
    }
}

async fn bind(address: SocketAddr, purpose: &'static str) -> Result<TcpListener, RunError> {
    let listen = |source| RunError::Listen { address: address.to_string(), purpose, source };
    TcpListener::bind(address).await.map_err(listen)
}

fn bind_control(path: &Path) -> Result<UnixListener, RunError> {
    let listen =
        |source| RunError::Listen { address: path.display().to_string(), purpose: "control", source };
    control::bind(path).map_err(listen)
}
