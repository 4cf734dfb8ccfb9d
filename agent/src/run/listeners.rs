//! The agent's ports and sockets. They outlive reloads that do not change them: an answer from the last
//! snapshot is better than a refused connection. A reload closes those that are no longer configured.

use std::{io, net::SocketAddr, os::unix::fs::PermissionsExt, path::Path, sync::Arc};

use agent_aws::CredentialChain;
use axum::Router;
use haproxy::agent_check;
use tokio::{
    net::{TcpListener, UnixListener},
    task::JoinError,
};
use tokio_util::task::AbortOnDropHandle;

use super::{RunError, inherited::Inherited};
use crate::{
    api::{
        bounded::{self, Bounded, Peer},
        control, http,
        tokens::{self, Offers},
    },
    config::{Address, Config, Listen},
    events::UnknownNames,
    metrics::labels::Question,
    proxies::{
        envoy::{checks, discovery::Envoys},
        haproxy::agent_check::Answers,
    },
    shared::Shared,
};

pub(super) struct Listeners {
    /// The addresses that are open.
    listen: Listen,
    envoys: Envoys,
    agent_check: Served,
    http: Served,
    envoy: Served,
    control: Served,
    tokens: Served,
    /// What the token socket gives.
    offers: Offers,
    inherited: Inherited,
}

/// The task of a listener, which ends when this is dropped. `None` if the address is not configured.
#[derive(Default)]
struct Served(Option<AbortOnDropHandle<()>>);

/// Addresses that are bound and not served yet.
#[derive(Default)]
struct Bound {
    agent_check: Option<TcpListener>,
    http: Option<TcpListener>,
    envoy: Option<::envoy::serve::Listener>,
    control: Option<UnixListener>,
    tokens: Option<UnixListener>,
}

// === impl Listeners ===

impl Listeners {
    pub(super) async fn open(config: &Config, envoys: &Envoys, shared: &Shared) -> Result<Self, RunError> {
        let mut listeners = Self {
            listen: config.listen.clone(),
            envoys: envoys.clone(),
            agent_check: Served::default(),
            http: Served::default(),
            envoy: Served::default(),
            control: Served::default(),
            tokens: Served::default(),
            offers: Offers::new(shared.metrics.clone()),
            inherited: Inherited::from_environment(),
        };
        let bound = Bound::to(&config.listen, None, &listeners.inherited).await?;
        for address in listeners.inherited.unused([config.listen.agent_check, config.listen.http]) {
            tracing::warn!(%address, "inherited socket is not used: its address is not in `listen`");
        }
        listeners.serve(bound, shared);
        Ok(listeners)
    }

    /// Opens what is new in a configuration, and closes what is no longer in it. After an error the
    /// addresses are as before.
    pub(super) async fn reopen(&mut self, config: &Config, shared: &Shared) -> Result<(), RunError> {
        let new = &config.listen;
        match Bound::to(new, Some(&self.listen), &self.inherited).await {
            Ok(bound) => {
                self.close_changed(new).await;
                self.serve(bound, shared);
            }
            // The new address may contain the old one, or be that of another listener before.
            Err(RunError::Listen { source, .. }) if source.kind() == io::ErrorKind::AddrInUse => {
                self.close_changed(new).await;
                let bound = match Bound::to(new, Some(&self.listen), &self.inherited).await {
                    Ok(bound) => bound,
                    Err(error) => {
                        let before = Bound::to(&self.listen, Some(new), &self.inherited).await?;
                        self.serve(before, shared);
                        return Err(error);
                    }
                };
                self.serve(bound, shared);
            }
            Err(error) => return Err(error),
        }
        self.listen = new.clone();
        Ok(())
    }

    /// Closes the addresses that `new` does not have.
    async fn close_changed(&mut self, new: &Listen) {
        let old = &self.listen;
        let changed = [
            (&mut self.agent_check, old.agent_check != new.agent_check),
            (&mut self.http, old.http != new.http),
            (&mut self.envoy, old.envoy != new.envoy),
            (&mut self.control, old.control != new.control),
            (&mut self.tokens, old.tokens != new.tokens),
        ];
        for (served, _) in changed.into_iter().filter(|(_, changed)| *changed) {
            served.close().await;
        }
        if let Some(Address::Unix(path)) = old.envoy.as_ref().filter(|_| old.envoy != new.envoy) {
            remove_socket(path);
        }
        if old.control != new.control {
            remove_socket(&old.control);
        }
        if let Some(path) = old.tokens.as_ref().filter(|_| old.tokens != new.tokens) {
            remove_socket(path);
        }
    }

    fn serve(&mut self, bound: Bound, shared: &Shared) {
        if let Some(listener) = bound.agent_check {
            let answers = Answers::new(shared.snapshot.clone(), shared.decider.clone(), &shared.metrics)
                .fresh_by(shared.clock)
                .noting(shared.questions.clone());
            let limits = agent_check::Limits::default();
            self.agent_check = Served::by(agent_check::serve(listener, Arc::new(answers), limits));
        }
        if let Some(listener) = bound.http {
            let router = http::router(self.source(shared)).merge(checks::router(self.checks(shared)));
            self.http = Served::by(serve_http(listener, router, shared));
        }
        if let Some(listener) = bound.envoy {
            let services = self.envoys.services(self.checks(shared));
            let limits = ::envoy::serve::Limits::default();
            self.envoy = Served::by(::envoy::serve::serve(listener, services, limits));
        }
        if let Some(listener) = bound.control {
            let router = control::router(shared.decider.clone()).merge(http::router(self.source(shared)));
            self.control = Served::by(serve_http(listener, router, shared));
        }
        if let Some(listener) = bound.tokens {
            let listener = Bounded::new(listener, bounded::Limits::default(), shared.metrics.clone());
            self.tokens = Served::by(tokens::serve(listener, self.offers.clone()));
        }
    }

    /// What the token socket gives from now on.
    pub(super) fn offer(&self, config: &Config, chain: &CredentialChain) {
        self.offers.replace(&config.socket_tokens, chain);
    }

    fn source(&self, shared: &Shared) -> http::Source {
        http::Source {
            snapshot: shared.snapshot.clone(),
            metrics: shared.metrics.clone(),
            clock: shared.clock,
            envoys: self.envoys.clone(),
            unknown: Arc::new(UnknownNames::new(Question::Http)),
            recent: shared.recent.clone(),
            hand_offs: shared.hand_offs.clone(),
            topologies: shared.topologies.clone(),
        }
    }

    fn checks(&self, shared: &Shared) -> checks::Answers {
        let envoys = self.envoys.clone();
        checks::Answers::new(
            self.envoys.published(),
            self.envoys.changes(),
            shared.clock,
            Arc::new(move || envoys.decided()),
        )
    }

    /// Resolves with the error when a listener ends, which none does by itself.
    pub(super) async fn failed(&mut self) -> String {
        let ended = tokio::select! {
            ended = self.agent_check.ended() => ended,
            ended = self.http.ended() => ended,
            ended = self.envoy.ended() => ended,
            ended = self.control.ended() => ended,
            ended = self.tokens.ended() => ended,
        };
        ended.err().map_or_else(|| "a listener ended".into(), |error| error.to_string())
    }

    pub(super) async fn close(mut self) {
        for served in
            [&mut self.agent_check, &mut self.http, &mut self.envoy, &mut self.control, &mut self.tokens]
        {
            served.close().await;
        }
        // A Unix socket outlives its listener; without an agent it only misleads.
        if let Some(Address::Unix(path)) = &self.listen.envoy {
            remove_socket(path);
        }
        remove_socket(&self.listen.control);
        if let Some(path) = &self.listen.tokens {
            remove_socket(path);
        }
    }
}

// === impl Served ===

impl Served {
    fn by(listener: impl Future<Output = ()> + Send + 'static) -> Self {
        Self(Some(AbortOnDropHandle::new(tokio::spawn(listener))))
    }

    /// Ready when the address is free.
    async fn close(&mut self) {
        if let Some(task) = self.0.take() {
            task.abort();
            let _ = task.await;
        }
    }

    async fn ended(&mut self) -> Result<(), JoinError> {
        match &mut self.0 {
            Some(task) => task.await,
            None => std::future::pending().await,
        }
    }
}

// === impl Bound ===

impl Bound {
    /// Binds the addresses of `listen` that are not in `open`, or takes them over from systemd.
    async fn to(listen: &Listen, open: Option<&Listen>, inherited: &Inherited) -> Result<Self, RunError> {
        let mut bound = Self::default();
        if open.is_none_or(|open| open.agent_check != listen.agent_check) {
            bound.agent_check = Some(bind(listen.agent_check, "agent checks", inherited).await?);
        }
        if open.is_none_or(|open| open.http != listen.http) {
            bound.http = Some(bind(listen.http, "HTTP", inherited).await?);
        }
        if open.is_none_or(|open| open.control != listen.control) {
            bound.control = Some(bind_unix(&listen.control, 0o600, "control")?);
        }
        if let Some(path) = listen.tokens.as_ref()
            && open.is_none_or(|open| open.tokens != listen.tokens)
        {
            // Every user may ask: the answer depends on who does.
            bound.tokens = Some(bind_unix(path, 0o666, "tokens")?);
        }
        if let Some(address) = listen.envoy.as_ref()
            && open.is_none_or(|open| open.envoy != listen.envoy)
        {
            bound.envoy = Some(bind_envoy(address).await?);
        }
        Ok(bound)
    }
}

fn serve_http<L>(listener: L, router: Router, shared: &Shared) -> impl Future<Output = ()> + Send + use<L>
where
    L: axum::serve::Listener,
    L::Addr: Peer + std::fmt::Debug,
{
    let listener = Bounded::new(listener, bounded::Limits::default(), shared.metrics.clone());
    async move {
        if let Err(error) = axum::serve(listener, router).await {
            tracing::error!(%error, "HTTP listener failed");
        }
    }
}

fn remove_socket(path: &Path) {
    let _ = std::fs::remove_file(path);
}

async fn bind_envoy(address: &Address) -> Result<::envoy::serve::Listener, RunError> {
    let listen = |source| RunError::Listen { address: address.to_string(), purpose: "Envoy", source };
    match address {
        // Envoy runs as another user and gets access by the group of the directory.
        Address::Unix(path) => {
            let listener = control::bind(path, 0o600).map_err(listen)?;
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660)).map_err(listen)?;
            Ok(listener.into())
        }
        Address::Tcp(address) => TcpListener::bind(address).await.map(Into::into).map_err(listen),
    }
}

async fn bind(
    address: SocketAddr,
    purpose: &'static str,
    inherited: &Inherited,
) -> Result<TcpListener, RunError> {
    let listen = |source| RunError::Listen { address: address.to_string(), purpose, source };
    if let Some(listener) = inherited.take(address) {
        listener.set_nonblocking(true).map_err(listen)?;
        return TcpListener::from_std(listener).map_err(listen);
    }
    TcpListener::bind(address).await.map_err(listen)
}

fn bind_unix(path: &Path, mode: u32, purpose: &'static str) -> Result<UnixListener, RunError> {
    let listen = |source| RunError::Listen { address: path.display().to_string(), purpose, source };
    control::bind(path, mode).map_err(listen)
}
