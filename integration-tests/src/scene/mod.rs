//! The whole picture: a stand-in, a HAProxy in front of it, the agent beside that.
//!
//! - [`agent`](Agent): the real binary, started, asked, frozen, killed.

mod agent;

use std::{sync::Arc, time::Duration};

use serde_json::Value;

pub use agent::{Agent, Files};

use crate::{
    haproxy::{Backend, Haproxy, HaproxyBinary, HaproxyConfig, Server},
    load::Target,
    process::{self, wait_for},
    standin::{self, Options, StandIn},
};

/// How long anything may take to be as it should.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// What a scene is made of.
#[derive(Clone, Debug)]
pub struct Setting {
    /// The stand-in.
    pub standin: Options,
    /// The HAProxy; Debian's if not said.
    pub haproxy: Option<HaproxyBinary>,
    /// How often HAProxy asks the agent.
    pub agent_inter: Duration,
    /// The `sessions` section, as YAML in one line.
    pub sessions: String,
    /// More keys of the database, as YAML lines.
    pub database: String,
    /// The user that the agent logs in as.
    pub user: String,
    /// Whether the agent knows the master socket.
    pub master: bool,
}

impl Default for Setting {
    fn default() -> Self {
        Self {
            standin: Options::default(),
            haproxy: None,
            agent_inter: Duration::from_millis(500),
            sessions: "{mode: observe}".into(),
            database: String::new(),
            user: "lb_agent".into(),
            master: true,
        }
    }
}

/// A stand-in, a HAProxy in front of it, and the agent beside that.
pub struct Scene {
    /// The agent.
    pub agent: Agent,
    /// The proxy: frontends `write` and `read`, backends `orders_write` and `orders_read`, servers called like instances.
    pub haproxy: Haproxy,
    /// The databases.
    pub standin: Arc<StandIn>,
}

/// A scene could not be set.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A program, the proxy among them.
    #[error(transparent)]
    Process(#[from] process::Error),
    /// The databases.
    #[error(transparent)]
    StandIn(#[from] standin::Error),
    /// Asking the agent.
    #[error("the agent does not answer: {0}")]
    Http(#[from] reqwest::Error),
    /// A file.
    #[error("{0}")]
    Io(#[from] std::io::Error),
}

impl Scene {
    /// Sets everything up and waits until HAProxy routes by what the agent says.
    pub async fn set(setting: Setting) -> Result<Self, Error> {
        let standin = Arc::new(StandIn::start(setting.standin.clone()).await?);
        Self::around(standin, setting).await
    }

    /// The same around a stand-in that runs already.
    pub async fn around(standin: Arc<StandIn>, setting: Setting) -> Result<Self, Error> {
        let ports = Files::new(&setting)?;
        let backend = |name: &str| {
            standin.servers().iter().fold(Backend::new(name), |backend, server| {
                let entry = Server::new(server.name(), server.connect());
                backend.server(entry.agent_check(ports.agent_check, setting.agent_inter))
            })
        };
        let config = HaproxyConfig::new()
            .frontend("write", "orders_write")
            .frontend("read", "orders_read")
            .backend(backend("orders_write"))
            .backend(backend("orders_read").line("balance leastconn"));
        let binary = match setting.haproxy.clone() {
            Some(binary) => binary,
            None => HaproxyBinary::debian()?,
        };
        let haproxy = Haproxy::start(&binary, config).await?;
        let mut agent = Agent::new(ports);
        agent.write_config(&agent.config_for(&standin, &haproxy, &setting))?;
        agent.environment = standin.environment();
        agent.start().await?;
        let scene = Self { agent, haproxy, standin };
        scene.routed().await?;
        Ok(scene)
    }

    /// Waits until HAProxy has exactly the writer up in the writer's backend.
    pub async fn routed(&self) -> Result<(), Error> {
        let writer = self.standin.writer()?.name().to_owned();
        self.up("orders_write", &[&writer]).await
    }

    /// Waits until exactly these servers of a backend are up.
    pub async fn up(&self, backend: &str, servers: &[&str]) -> Result<(), Error> {
        let what = format!("exactly {servers:?} of {backend} up");
        wait_for(&what, PATIENCE, async || {
            let mut up = Vec::new();
            for server in self.standin.servers() {
                match self.haproxy.operational_state(backend, server.name()).await {
                    Ok(0) => {}
                    Ok(_) => up.push(server.name()),
                    Err(error) => return Err(error.to_string()),
                }
            }
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
        Ok(Target::of(&self.standin, user)?.dialling(self.haproxy.address("write")))
    }

    /// A client's way to the readers, as this user.
    pub fn readers(&self, user: &str) -> Result<Target, Error> {
        Ok(Target::of(&self.standin, user)?.dialling(self.haproxy.address("read")))
    }

    /// Stops everything. Fails if the stand-in is still used by a client.
    pub async fn clear(self) -> Result<(), Error> {
        let Self { agent, haproxy, standin } = self;
        drop(agent);
        drop(haproxy);
        if let Some(standin) = Arc::into_inner(standin) {
            standin.shutdown().await?;
        }
        Ok(())
    }
}
