//! One arm of a play: a proxy, the agent beside it if any, and its clients.

use std::{net::Ipv4Addr, sync::Arc, time::Duration};

use serde::Serialize;
use tokio::sync::Mutex;

use super::{
    Error,
    balancer::{AgentSockets, Balancer},
    client::{Clients, Order},
    last_answers::{LastAnswers, answers},
    names::NameServer,
    relay::Relay,
    script::{Cell, ProxyKind, Script},
};
use crate::{
    process::wait_for,
    scene::{Agent, Files, PATIENCE, Setting},
    standin::{Server, StandIn},
};

/// What decides where the proxy of an arm sends its clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ArmKind {
    Acting,
    /// The proxy as the agent left it when the script began.
    Mute,
    /// The same once more: what it differs by from the other is chance.
    MuteAgain,
    /// No agent: one server on the cluster's name by DNS.
    Plain,
}

impl ArmKind {
    pub const ALL: [Self; 4] = [Self::Acting, Self::Mute, Self::MuteAgain, Self::Plain];
}

pub(super) struct Arm {
    pub(super) kind: ArmKind,
    pub(super) balancer: Mutex<Balancer>,
    pub(super) agent: Mutex<Option<Agent>>,
    /// By server, where the agent reaches the servers by a path of its own.
    pub(super) relays: Vec<(String, Relay)>,
    pub(super) clients: Arc<Clients>,
    last_answers: Mutex<Option<LastAnswers>>,
}

impl Arm {
    /// Starts it, and waits until it serves as it does on a quiet day.
    pub(super) async fn start(
        kind: ArmKind,
        script: &Script,
        cell: Cell,
        standin: &Arc<StandIn>,
        names: &NameServer,
    ) -> Result<Self, Error> {
        /// A port that was free may be taken by a client before the agent has it.
        const STARTS: u32 = 3;
        let mut tries = 1;
        loop {
            match Self::start_once(kind, script, cell, standin, names).await {
                Err(error) if error.to_string().contains("already in use") && tries < STARTS => tries += 1,
                done => return done,
            }
        }
    }

    async fn start_once(
        kind: ArmKind,
        script: &Script,
        cell: Cell,
        standin: &Arc<StandIn>,
        names: &NameServer,
    ) -> Result<Self, Error> {
        let number = ArmKind::ALL.iter().position(|known| *known == kind).unwrap_or_default();
        let source = Ipv4Addr::new(127, 0, 0, 10 + u8::try_from(number).unwrap_or_default());
        let mut relays = Vec::new();
        let (agent, balancer) = if kind == ArmKind::Plain {
            (None, Balancer::start(cell.proxy, script, standin, names, None, source).await?)
        } else {
            let setting = Setting {
                sessions: "{mode: retire, max_age: 14m}".into(),
                database: format!("    probe_interval: {}\n", script.probe_interval),
                state_file: true,
                ..Setting::default()
            };
            let files = Files::new(&setting)?;
            let (socket, server_state) = (files.envoy(), files.server_state());
            let beside =
                AgentSockets { agent_check: files.agent_check, envoy: &socket, server_state: &server_state };
            let balancer = Balancer::start(cell.proxy, script, standin, names, Some(beside), source).await?;
            let mut agent = Agent::new(files);
            let mut config = balancer.config_for(&agent, standin, &setting);
            if script.has_agent_path() {
                for server in standin.servers() {
                    let relay = Relay::to(server.connect())?;
                    let connect = |address| format!("connect: \"{address}\"");
                    config = config.replace(&connect(server.connect()), &connect(relay.address));
                    relays.push((server.name().to_owned(), relay));
                }
            }
            agent.write_config(&config)?;
            agent.environment = standin.environment();
            agent.start().await?;
            (Some(agent), balancer)
        };
        let clients = Clients {
            standin: standin.clone(),
            tls: standin.tls()?,
            write: balancer.dial("write"),
            read: balancer.dial("read"),
            client: number,
        };
        let arm = Self {
            kind,
            balancer: Mutex::new(balancer),
            agent: Mutex::new(agent),
            relays,
            clients: Arc::new(clients),
            last_answers: Mutex::default(),
        };
        arm.settle(script, standin).await?;
        if matches!(kind, ArmKind::Mute | ArmKind::MuteAgain) {
            arm.mute(cell.proxy, script, standin).await?;
        }
        Ok(arm)
    }

    async fn settle(&self, script: &Script, standin: &StandIn) -> Result<(), Error> {
        if self.kind != ArmKind::Plain {
            let what = "the proxy to route by role";
            wait_for(what, PATIENCE, async || self.routed(script, standin).await).await?;
        }
        for (wanted, write) in [(script.writes(), true), (script.reads(), false)] {
            if wanted {
                let what = format!("a first transaction in the arm {:?}", self.kind);
                let mut number = 1_000_000;
                wait_for(&what, PATIENCE, || {
                    number += 1;
                    let order = Order { number, at: Duration::ZERO, write, thinks: Duration::ZERO };
                    async move { self.clients.run(order).await.map(drop).map_err(|failure| failure.reason) }
                })
                .await?;
            }
        }
        Ok(())
    }

    /// Whether the right servers are up, and no others.
    pub(super) async fn routed(&self, script: &Script, standin: &StandIn) -> Result<(), String> {
        let writer = standin.writer().map_err(|error| error.to_string())?.name();
        let mut expected = vec![("orders_write", vec![writer])];
        if script.replicas > 0 {
            let replicas = standin.servers().iter().map(Server::name).filter(|name| *name != writer);
            let readers = if script.readers.is_empty() { replicas.collect() } else { script.readers.into() };
            expected.push(("orders_read", readers));
        }
        for (backend, servers) in expected {
            let up =
                self.balancer.lock().await.up(backend, standin).await.map_err(|error| error.to_string())?;
            if up != servers {
                return Err(format!("{up:?} of {backend} up, and not {servers:?}"));
            }
        }
        Ok(())
    }

    /// Kills the agent; HAProxy's checks still get its last answers.
    async fn mute(&self, proxy: ProxyKind, script: &Script, standin: &StandIn) -> Result<(), Error> {
        let Some(mut agent) = self.agent.lock().await.take() else { return Ok(()) };
        let port = agent.agent_check();
        if proxy == ProxyKind::Envoy {
            agent.kill();
            return Ok(());
        }
        // The agent has looked twice without a change to write.
        let file = agent.folder().join("server-state");
        wait_for("the server state file to settle", PATIENCE, async || {
            let age = file.metadata().and_then(|data| data.modified()).ok().and_then(|at| at.elapsed().ok());
            age.filter(|age| *age > Duration::from_millis(1_200)).map(drop).ok_or("not yet")
        })
        .await?;
        let names = standin.servers().iter().map(Server::name);
        let servers = names.flat_map(|name| [format!("orders_write/{name}"), format!("orders_read/{name}")]);
        let answers = answers(port, servers.collect()).await?;
        agent.kill();
        // Its folder stays, with the server state file in it.
        *self.agent.lock().await = Some(agent);
        let said = format!("{answers:?}");
        let repeated = LastAnswers::repeat(port, answers)?;
        wait_for("HAProxy to ask about each server", PATIENCE, async || {
            repeated.all_asked().then_some(()).ok_or("not yet")
        })
        .await?;
        *self.last_answers.lock().await = Some(repeated);
        self.routed(script, standin)
            .await
            .map_err(|seen| Error::Muted(format!("{seen}; its answers are {said}")))
    }
}
