//! The agent-check server asked by running HAProxy 2.6 and 2.8: what each reply does, and
//! what the steady one leaves alone.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test")]

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use haproxy::{
    Address,
    agent_check::{Admin, Answer, Health, Limits, Reply, serve},
    runtime::{AdminState, Connection, Operational, ServerState, Stat},
};
use integration_tests::{
    haproxy::{Backend, Haproxy, HaproxyBinary, HaproxyConfig, Server},
    process::wait_for,
};
use tokio::{net::TcpListener, task::AbortHandle};

const PATIENCE: Duration = Duration::from_secs(10);
const UP_LINE: Option<Health> = Some(Health::Up);
/// How `show stat` calls a server that is up and has an agent check only.
const UP: &str = "no check";
const EVERY: Duration = Duration::from_millis(100);

/// Replies as configured, and records what was asked.
#[derive(Debug, Default)]
struct Replies {
    by_server: Mutex<BTreeMap<String, Reply>>,
    asked: Mutex<BTreeSet<String>>,
    delivered: Mutex<BTreeMap<String, u64>>,
}

impl Answer for Replies {
    fn line(&self, key: &str) -> String {
        self.asked.lock().unwrap().insert(key.to_owned());
        self.by_server.lock().unwrap().get(key).cloned().unwrap_or_default().line()
    }

    fn delivered(&self, key: &str, _line: &str) {
        *self.delivered.lock().unwrap().entry(key.to_owned()).or_default() += 1;
    }
}

struct Agent {
    address: SocketAddr,
    replies: Arc<Replies>,
    task: AbortHandle,
}

impl Agent {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let replies = Arc::new(Replies::default());
        let task = tokio::spawn(serve(listener, replies.clone(), Limits::default())).abort_handle();
        Self { address, replies, task }
    }

    fn says(&self, key: &str, admin: Option<Admin>, health: Option<Health>) {
        self.replies.by_server.lock().unwrap().insert(key.to_owned(), Reply { admin, health });
    }

    /// Waits until so many more replies have been delivered.
    async fn delivered(&self, key: &str, times: u64) {
        let delivered = || self.replies.delivered.lock().unwrap().get(key).copied().unwrap_or(0);
        let before = delivered();
        wait_for("checks to be answered", PATIENCE, async || {
            if delivered() >= before + times {
                Ok(())
            } else {
                Err(format!("{} since", delivered() - before))
            }
        })
        .await
        .unwrap();
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Proxy {
    _haproxy: Haproxy,
    admin: Address,
}

impl Proxy {
    async fn start(binary: &HaproxyBinary, backend: Backend) -> Self {
        let config = HaproxyConfig::new().frontend("orders_in", "orders").backend(backend);
        let haproxy = Haproxy::start(binary, config).await.unwrap();
        let admin = Address::Unix(haproxy.admin_socket());
        Self { _haproxy: haproxy, admin }
    }

    async fn open(&self) -> Connection {
        Connection::open(&self.admin, haproxy::runtime::Limits::default()).await.unwrap()
    }

    async fn seen(&self, server: &str) -> (Stat, ServerState) {
        let mut connection = self.open().await;
        let stat = connection.stat().await.unwrap();
        let states = connection.servers_state(Some("orders")).await.unwrap();
        (
            stat.into_iter().find(|row| row.proxy == "orders" && row.server == server).unwrap(),
            states.into_iter().find(|state| state.server == server).unwrap(),
        )
    }

    async fn is(&self, server: &str, status: &str) {
        wait_for(&format!("{server} to be {status}"), PATIENCE, async || {
            let (stat, _) = self.seen(server).await;
            if stat.status == status { Ok(()) } else { Err(stat.status) }
        })
        .await
        .unwrap();
    }
}

#[tokio::test]
async fn each_agent_check_reply_has_its_documented_effect() {
    for binary in HaproxyBinary::all().unwrap() {
        let agent = Agent::start().await;
        let nowhere = "127.0.0.1:9".parse().unwrap();
        let servers = ["pg1", "pg2"].map(|name| Server::new(name, nowhere).agent_check(agent.address, EVERY));
        let backend = servers.into_iter().fold(Backend::new("orders"), Backend::server);
        let proxy = Proxy::start(&binary, backend).await;

        agent.says("orders/pg1", None, UP_LINE);
        proxy.is("pg1", UP).await;
        agent.says("orders/pg1", None, Some(Health::Down("not the writer, since 12:00; a #reason".into())));
        proxy.is("pg1", "DOWN (agent)").await;
        let neighbour = proxy.seen("pg2").await;
        assert_eq!(
            (&*neighbour.0.status, neighbour.1.operational, neighbour.1.admin),
            (UP, Operational::Running, 0)
        );
        // A neutral answer changes nothing.
        agent.says("orders/pg1", None, None);
        agent.delivered("orders/pg1", 3).await;
        proxy.is("pg1", "DOWN (agent)").await;
        agent.says("orders/pg1", None, UP_LINE);
        proxy.is("pg1", UP).await;

        agent.says("orders/pg1", Some(Admin::Drain), UP_LINE);
        proxy.is("pg1", "DRAIN (agent)").await;
        assert!(proxy.seen("pg1").await.1.forced_drain());
        // Only `ready` ends it.
        agent.says("orders/pg1", None, UP_LINE);
        agent.delivered("orders/pg1", 3).await;
        assert!(proxy.seen("pg1").await.1.forced_drain());
        agent.says("orders/pg1", Some(Admin::Ready), UP_LINE);
        proxy.is("pg1", UP).await;
        assert_eq!(proxy.seen("pg1").await.1.admin, 0);
        assert_eq!(
            *agent.replies.asked.lock().unwrap(),
            ["orders/pg1", "orders/pg2"].map(str::to_owned).into()
        );
    }
}

#[tokio::test]
async fn the_steady_reply_keeps_an_operators_setting() {
    for binary in HaproxyBinary::all().unwrap() {
        let agent = Agent::start().await;
        let server = Server::new("pg1", "127.0.0.1:9".parse().unwrap()).agent_check(agent.address, EVERY);
        let proxy = Proxy::start(&binary, Backend::new("orders").server(server.words("weight 100"))).await;
        for health in [UP_LINE, Some(Health::Down("no answer".into())), None] {
            agent.says("orders/pg1", None, health);
            for (state, flags) in
                [(AdminState::Drain, 0x08), (AdminState::Maint, 0x01), (AdminState::Ready, 0x00)]
            {
                let mut connection = proxy.open().await;
                connection.set_state("orders", "pg1", state).await.unwrap();
                connection.silent("set server orders/pg1 weight 17").await.unwrap();
                agent.delivered("orders/pg1", 3).await;
                let (_, seen) = proxy.seen("pg1").await;
                assert_eq!((seen.admin, seen.weight), (flags, 17), "{state:?}");
            }
        }
    }
}

#[tokio::test]
async fn the_next_check_overrides_a_health_set_by_hand() {
    for binary in HaproxyBinary::all().unwrap() {
        let agent = Agent::start().await;
        let server = Server::new("pg1", "127.0.0.1:9".parse().unwrap());
        let backend = Backend::new("orders").server(server.agent_check(agent.address, EVERY));
        let proxy = Proxy::start(&binary, backend).await;
        agent.says("orders/pg1", None, None);
        agent.delivered("orders/pg1", 1).await;
        let mut connection = proxy.open().await;
        connection.set_agent("orders", "pg1", false).await.unwrap();
        proxy.is("pg1", "DOWN (agent)").await;
        agent.says("orders/pg1", None, UP_LINE);
        proxy.is("pg1", UP).await;
    }
}

/// Through `add server` on the command line, no newline can be given to `agent-send`. A check
/// that sends nothing is slow: the kernel holds its handshake back for up to 200 ms.
#[tokio::test]
async fn a_check_without_a_newline_or_without_a_word_is_answered() {
    for binary in HaproxyBinary::all().unwrap() {
        let agent = Agent::start().await;
        let check = |name: &str, send: &str| {
            let (ip, port) = (agent.address.ip(), agent.address.port());
            let words = format!("agent-check agent-addr {ip} agent-port {port} agent-inter 1s {send}");
            Server::new(name, "127.0.0.1:9".parse().unwrap()).words(&words)
        };
        let backend =
            Backend::new("orders").server(check("pg1", "agent-send orders/pg1")).server(check("pg2", ""));
        let proxy = Proxy::start(&binary, backend).await;
        let down = || Some(Health::Down("for a test".into()));
        agent.says("orders/pg1", None, down());
        agent.says("", None, down());
        proxy.is("pg1", "DOWN (agent)").await;
        proxy.is("pg2", "DOWN (agent)").await;
        agent.says("orders/pg1", None, UP_LINE);
        agent.says("", None, UP_LINE);
        proxy.is("pg1", UP).await;
        proxy.is("pg2", UP).await;
    }
}

#[tokio::test]
async fn an_agent_that_dies_takes_nothing_down() {
    for binary in HaproxyBinary::all().unwrap() {
        let agent = Agent::start().await;
        let server = Server::new("pg1", "127.0.0.1:9".parse().unwrap());
        let backend = Backend::new("orders").server(server.agent_check(agent.address, EVERY));
        let proxy = Proxy::start(&binary, backend).await;
        agent.says("orders/pg1", None, UP_LINE);
        agent.delivered("orders/pg1", 2).await;
        let checked = proxy.seen("pg1").await.0.agent_status;
        drop(agent);
        wait_for("checks to fail", PATIENCE, async || {
            let now = proxy.seen("pg1").await.0.agent_status;
            if now == checked { Err(now) } else { Ok(()) }
        })
        .await
        .unwrap();
        proxy.is("pg1", UP).await;
    }
}
