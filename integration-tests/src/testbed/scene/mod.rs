//! The whole picture: a stand-in, a proxy in front of it, the agent beside that.
//!
//! - [`agent`](Agent): the real binary, started, asked, frozen, killed.
//! - [`Proxy`]: what a HAProxy and an Envoy have in common here.

mod agent;
mod proxy;

use std::{sync::Arc, time::Duration};

use serde_json::Value;

pub use agent::{Agent, Files};
pub use proxy::Proxy;

use crate::{
    envoy::EnvoyConfig,
    haproxy::{Haproxy, HaproxyBinary},
    load::Target,
    process::{self, wait_for},
    standin::{self, Options, StandIn},
};

/// How long anything may take to be as it should.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// What a scene is made of.
#[derive(Clone, Debug)]
pub struct Setting {
    pub standin: Options,
    /// The HAProxy; Debian's if not said.
    pub haproxy: Option<HaproxyBinary>,
    /// The Envoy's configuration, less where things are; the shipped one if not said.
    pub envoy: Option<EnvoyConfig>,
    /// The instance to which the cluster's names lead by DNS behind Envoy; the writer of the beginning if
    /// not said.
    pub dns: Option<&'static str>,
    /// How often HAProxy asks the agent.
    pub agent_inter: Duration,
    /// More words of each server's line in a HAProxy: `source 127.0.0.2` for one.
    pub server_words: String,
    /// The `sessions` section, as YAML in one line.
    pub sessions: String,
    /// More keys of the database, as YAML lines.
    pub database: String,
    /// The user that the agent logs in as.
    pub user: String,
    /// Whether the agent knows the master socket.
    pub master: bool,
    /// Whether the agent keeps HAProxy's server state file current, and HAProxy reads it.
    pub state_file: bool,
    /// Whether HAProxy has a waiting room, as in the shipped recipe.
    pub waiting_room: bool,
    /// How the agent receives HAProxy's log, if it does.
    pub session_log: Option<SessionLog>,
    /// More keys of the agent's configuration, as YAML lines.
    pub more: String,
}

/// How the agent receives HAProxy's log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionLog {
    /// In the agent's own format, by UDP.
    Udp,
    /// The same to a Unix socket.
    Unix,
    /// In the format of `option tcplog`, by UDP.
    Tcplog,
}

impl Default for Setting {
    fn default() -> Self {
        Self {
            standin: Options::default(),
            haproxy: None,
            envoy: None,
            dns: None,
            agent_inter: Duration::from_millis(500),
            server_words: String::new(),
            sessions: "{mode: observe}".into(),
            database: String::new(),
            user: "lb_agent".into(),
            master: true,
            state_file: false,
            waiting_room: false,
            session_log: None,
            more: String::new(),
        }
    }
}

/// A stand-in, a proxy in front of it, and the agent beside that.
pub struct Scene<P = Haproxy> {
    pub agent: Agent,
    /// The proxy: frontends `write` and `read`, backends `orders_write` and `orders_read`, servers called like instances.
    pub proxy: P,
    pub standin: Arc<StandIn>,
}

/// A scene could not be set.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A program, the proxy among them.
    #[error(transparent)]
    Process(#[from] process::Error),
    #[error(transparent)]
    StandIn(#[from] standin::Error),
    #[error("the agent does not answer: {0}")]
    Http(#[from] reqwest::Error),
    #[error("{0}")]
    Io(#[from] std::io::Error),
}

impl Scene {
    /// Sets everything up with a HAProxy, and waits until it routes by what the agent says.
    pub async fn set(setting: Setting) -> Result<Self, Error> {
        Self::with(setting).await
    }
}

impl<P: Proxy> Scene<P> {
    /// Sets everything up with this proxy, and waits until it routes by what the agent says.
    pub async fn with(setting: Setting) -> Result<Self, Error> {
        let standin = Arc::new(StandIn::start(setting.standin.clone()).await?);
        Self::around(standin, setting).await
    }

    /// The same around a stand-in that runs already.
    pub async fn around(standin: Arc<StandIn>, setting: Setting) -> Result<Self, Error> {
        let scene = Self::begin(standin, setting).await?;
        scene.routed().await?;
        Ok(scene)
    }

    /// The same, without waiting for the proxy to route.
    pub async fn begin(standin: Arc<StandIn>, setting: Setting) -> Result<Self, Error> {
        let files = Files::new(&setting)?;
        let proxy = P::begin(&standin, &files, &setting).await?;
        let mut agent = Agent::new(files);
        agent.write_config(&agent.config_for(&standin, &proxy, &setting))?;
        agent.environment = standin.environment();
        agent.start().await?;
        Ok(Self { agent, proxy, standin })
    }

    /// Waits until the proxy has exactly the writer up in the writer's backend.
    pub async fn routed(&self) -> Result<(), Error> {
        let writer = self.standin.writer()?.name().to_owned();
        self.up("orders_write", &[&writer]).await
    }

    /// Waits until exactly these servers of a backend are up.
    pub async fn up(&self, backend: &str, servers: &[&str]) -> Result<(), Error> {
        let what = format!("exactly {servers:?} of {backend} up");
        wait_for(&what, PATIENCE, async || {
            let up = self.proxy.up(backend, &self.standin).await.map_err(|error| error.to_string())?;
            if up == servers { Ok(()) } else { Err(format!("{up:?}; {}", self.verdicts().await)) }
        })
        .await?;
        Ok(())
    }

    /// The agent's verdicts, for messages.
    pub async fn verdicts(&self) -> Value {
        match self.agent.state().await {
            Ok(state) => state.pointer("/state/fleet/servers").cloned().unwrap_or_default(),
            Err(error) => Value::String(error.to_string()),
        }
    }

    /// A client's way to the writer, as this user.
    pub fn writer(&self, user: &str) -> Result<Target, Error> {
        Ok(Target::of(&self.standin, user)?.dialling(self.proxy.dial("write")))
    }

    /// A client's way to the readers, as this user.
    pub fn readers(&self, user: &str) -> Result<Target, Error> {
        Ok(Target::of(&self.standin, user)?.dialling(self.proxy.dial("read")))
    }

    /// Stops everything. Fails if the stand-in is still used by a client.
    pub async fn clear(self) -> Result<(), Error> {
        let Self { agent, proxy, standin } = self;
        drop(agent);
        drop(proxy);
        if let Some(standin) = Arc::into_inner(standin) {
            standin.shutdown().await?;
        }
        Ok(())
    }
}
