//! The servers and the arms of one play, and what can be done to them.

use std::{sync::Arc, time::Duration};

use futures_util::future::{join_all, try_join_all};
use tokio::time::{Instant, sleep, sleep_until};

use super::{
    Error,
    arm::{Arm, ArmKind},
    balancer::Balancer,
    names::NameServer,
    script::{Cell, Event, Script},
};
use crate::{
    process::{Signal, send_signal},
    scene::Agent,
    standin::{Options, Server, StandIn, StopMode},
};

/// From the end of a failover, or of a server, to the change of the cluster's names. On RDS it is
/// seconds too; then clients have to see it, which the TTL of 5 s delays.
const NAMES_FOLLOW: Duration = Duration::from_secs(5);

pub(super) struct Stage {
    pub(super) standin: Arc<StandIn>,
    names: Arc<NameServer>,
    pub(super) arms: Vec<Arm>,
}

impl Stage {
    /// Sets everything up, all arms in front of the same servers.
    pub(super) async fn set(script: &Script, cell: Cell) -> Result<Self, Error> {
        let options = Options { engine: cell.engine, replicas: script.replicas, ..Options::default() };
        let standin = Arc::new(StandIn::start(options).await?);
        let names = Arc::new(NameServer::serve().await?);
        let mut stage = Self { standin, names, arms: Vec::new() };
        for event in script.before {
            stage.apply(*event).await?;
        }
        follow(&stage.names, &stage.standin).await?;
        let (standin, names) = (&stage.standin, &stage.names);
        let arms = ArmKind::ALL.map(|kind| Arm::start(kind, script, cell, standin, names));
        stage.arms = try_join_all(arms).await?;
        Ok(stage)
    }

    /// Plays the events, each at its time.
    pub(super) async fn play(&self, events: &[(u64, Event)], start: Instant) -> Result<(), Error> {
        let events = events.iter().map(|(at, event)| async move {
            sleep_until(start + Duration::from_millis(*at)).await;
            let outcome = self.apply(*event).await;
            outcome.map_err(|error| Error::Event { event: format!("{event:?}"), source: Box::new(error) })
        });
        // All are played, whatever fails.
        join_all(events).await.into_iter().collect()
    }

    /// Resumes frozen servers and starts the final writer, so that it can be asked and all can be stopped.
    pub(super) async fn release(&self) -> Result<(), Error> {
        for server in self.standin.servers() {
            if let Some(pid) = server.pid().await {
                send_signal(pid, Signal::CONT)?;
            }
            self.standin.thaw(server.name()).await?;
        }
        let writer = self.standin.writer()?.name();
        Ok(self.standin.start_server(writer).await?)
    }

    pub(super) async fn clear(self) -> Result<(), Error> {
        let Self { standin, arms, .. } = self;
        drop(arms);
        match Arc::into_inner(standin) {
            Some(standin) => Ok(standin.shutdown().await?),
            None => Ok(()),
        }
    }

    pub(super) fn arm(&self, kind: ArmKind) -> Option<&Arm> {
        self.arms.iter().find(|arm| arm.kind == kind)
    }

    async fn apply(&self, event: Event) -> Result<(), Error> {
        let standin = &self.standin;
        match event {
            Event::Restart(server, mode, down) => {
                let until = Instant::now() + Duration::from_millis(down);
                standin.stop(server, mode).await?;
                sleep_until(until).await;
                standin.start_server(server).await?;
            }
            Event::Stop(server, mode) => {
                standin.stop(server, mode).await?;
                self.names_follow();
            }
            Event::Start(server) => {
                standin.start_server(server).await?;
                self.names_follow();
            }
            Event::Freeze(server) => standin.freeze(server).await?,
            Event::Thaw(server) => standin.thaw(server).await?,
            Event::FreezePostmaster(server) => signal(standin.server(server)?, Signal::STOP).await?,
            Event::ThawPostmaster(server) => signal(standin.server(server)?, Signal::CONT).await?,
            Event::Promote(server) => {
                standin.promote(server).await?;
                self.names_follow();
            }
            Event::Follow(server) => standin.follow(server).await?,
            Event::Failover(to) => {
                standin.failover(to).await?;
                self.names_follow();
            }
            Event::Rejoin(server) => {
                // What it was acknowledged and has not sent is lost, as on RDS.
                standin.stop(server, StopMode::Immediate).await?;
                standin.rebuild_as_replica(server).await?;
                self.names_follow();
            }
            Event::Sql(server, sql) => drop(standin.execute_sql(server, sql).await?),

            Event::RefuseTokens(server, user) => standin.refuse_tokens(server, user)?,
            Event::AcceptTokens => standin.accept_tokens(),
            Event::Credentials(behaviour) => standin.credentials().behave(behaviour),

            Event::Reload => self.each_proxy(async |proxy| proxy.reload().await).await?,
            Event::RestartProxy(down) => {
                let down = Duration::from_millis(down);
                self.each_proxy(async |proxy| proxy.restart(false, down).await).await?;
            }
            Event::CrashProxy(down) => {
                let down = Duration::from_millis(down);
                self.each_proxy(async |proxy| proxy.restart(true, down).await).await?;
            }
            Event::Operator(command) => {
                for arm in self.arms.iter().filter(|arm| arm.kind != ArmKind::Plain) {
                    let said = arm.balancer.lock().await.operator(command).await?;
                    if !said.trim().is_empty() {
                        return Err(Error::Operator(said.trim().to_owned()));
                    }
                }
            }
            Event::Readdress(server, to) => {
                for arm in self.arms.iter().filter(|arm| arm.kind != ArmKind::Plain) {
                    arm.balancer.lock().await.readdress(server, to, standin).await?;
                }
            }

            Event::KillAgent => {
                self.agent(async |agent| {
                    agent.kill();
                    Ok(())
                })
                .await?;
            }
            Event::StopAgent => self.agent(async |agent| Ok(agent.stop().await?)).await?,
            Event::StartAgent => self.agent(async |agent| Ok(agent.spawn()?)).await?,
            Event::UpgradeAgent => {
                // As systemd restarts it.
                self.agent(async |agent| {
                    agent.signal(Signal::USR1)?;
                    agent.ended().await?;
                    Ok(agent.spawn()?)
                })
                .await?;
            }
            Event::FreezeAgent => self.agent(async |agent| Ok(agent.signal(Signal::STOP)?)).await?,
            Event::ThawAgent => self.agent(async |agent| Ok(agent.signal(Signal::CONT)?)).await?,
            Event::StarveAgent(times, frozen, running) => {
                for _ in 0..times {
                    self.agent(async |agent| Ok(agent.signal(Signal::STOP)?)).await?;
                    sleep(Duration::from_millis(frozen)).await;
                    self.agent(async |agent| Ok(agent.signal(Signal::CONT)?)).await?;
                    sleep(Duration::from_millis(running)).await;
                }
            }
            Event::AgentPath(server, path) => {
                let relays = self.arm(ArmKind::Acting).map(|arm| arm.relays.iter());
                for (_, relay) in relays.into_iter().flatten().filter(|(name, _)| name == server) {
                    relay.set(path);
                }
            }
            Event::AgentCommand(arguments) => {
                self.agent(async |agent| {
                    let (code, out, err) = agent.command(arguments).await?;
                    if code == 0 { Ok(()) } else { Err(Error::Command(format!("{code}: {out}{err}"))) }
                })
                .await?;
            }
            Event::EditConfig(from, to) => {
                self.agent(async |agent| {
                    let text = tokio::fs::read_to_string(agent.config_file()).await?;
                    Ok(agent.write_config(&text.replace(from, to))?)
                })
                .await?;
            }
        }
        Ok(())
    }

    /// The same to the proxy of each arm, at once.
    async fn each_proxy(
        &self,
        change: impl AsyncFn(&mut Balancer) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let changes = self.arms.iter().map(|arm| async { change(&mut *arm.balancer.lock().await).await });
        try_join_all(changes).await.map(drop)
    }

    /// To the agent that acts.
    async fn agent(&self, change: impl AsyncFnOnce(&mut Agent) -> Result<(), Error>) -> Result<(), Error> {
        let Some(arm) = self.arm(ArmKind::Acting) else { return Ok(()) };
        match arm.agent.lock().await.as_mut() {
            Some(agent) => change(agent).await,
            None => Ok(()),
        }
    }

    fn names_follow(&self) {
        // Before the arms are there, the names are set at once.
        if self.arms.is_empty() {
            return;
        }
        let (names, standin) = (self.names.clone(), Arc::downgrade(&self.standin));
        tokio::spawn(async move {
            sleep(NAMES_FOLLOW).await;
            if let Some(standin) = standin.upgrade() {
                let _ = follow(&names, &standin).await;
            }
        });
    }
}

/// The names lead to the present writer, and to the others that run; to the writer if none does.
async fn follow(names: &NameServer, standin: &StandIn) -> Result<(), Error> {
    let writer = standin.writer()?;
    let mut readers = Vec::new();
    for server in standin.servers() {
        if server.name() != writer.name() && server.pid().await.is_some() && !server.is_frozen().await {
            readers.push(server.connect());
        }
    }
    if readers.is_empty() {
        readers.push(writer.connect());
    }
    names.set(standin.cluster_endpoint(), [writer.connect()]);
    names.set(standin.reader_endpoint(), readers);
    Ok(())
}

async fn signal(server: &Server, signal: Signal) -> Result<(), Error> {
    let pid = server.pid().await.ok_or(Error::Script("the server does not run"))?;
    Ok(send_signal(pid, signal)?)
}
