//! Servers, an agent, and a HAProxy that runs a recipe in front of them.

use std::{fs, path::PathBuf, time::Duration};

use haproxy::{
    Address,
    runtime::{Connection, Limits, ServerState},
};
use integration_tests::{
    haproxy::{Haproxy, HaproxyBinary, Recipe},
    process::wait_for,
};

use crate::{
    agent::Agent,
    databases::{Databases, Reached, connect, ip_of},
    name_server::NameServer,
};

pub const PATIENCE: Duration = Duration::from_secs(60);

pub struct Lab {
    pub databases: Databases,
    pub agent: Agent,
    pub names: NameServer,
    pub haproxy: Haproxy,
}

/// What happens to a HAProxy.
#[derive(Copy, Clone, Debug)]
pub enum Disturbance {
    Reload,
    Restart,
    Kill,
}

impl Disturbance {
    pub fn of(round: usize) -> Self {
        [Self::Reload, Self::Restart, Self::Kill][round % 3]
    }
}

/// Reloads, restarts and kills in each of the four tests that have them.
pub fn rounds() -> usize {
    let all = std::env::var("WITHOUT_AGENT_ROUNDS").ok().and_then(|rounds| rounds.parse::<usize>().ok());
    all.unwrap_or(24).div_ceil(4)
}

/// A recipe with the addresses of these servers and this agent.
pub fn recipe(name: &str, databases: &Databases, agent: &Agent, names: &NameServer) -> Recipe {
    let port = databases.address("a").port();
    let recipe = Recipe::shipped(name)
        .unwrap()
        .replace("192.0.2.11:5432", &databases.address("a").to_string())
        .replace("192.0.2.12:5432", &databases.address("b").to_string())
        .replace(
            "agent-port 7878 agent-inter 1s",
            &format!("agent-port {} agent-inter 500ms", agent.checks.port()),
        )
        .replace("orders.cluster-ro-abc.", "orders-ro.cluster-abc.")
        .replace("rds.amazonaws.com:5432", &format!("rds.amazonaws.com:{port}"))
        .replace("parse-resolv-conf", &format!("nameserver test {}", names.address));
    if name == "fail-closed.cfg" {
        recipe.replace("port 7879", &format!("port {}", agent.http.port()))
    } else {
        recipe
    }
}

impl Lab {
    pub async fn with(name: &str, binary: &HaproxyBinary) -> Self {
        Self::with_changed(name, binary, |recipe| recipe).await
    }

    pub async fn with_changed(name: &str, binary: &HaproxyBinary, change: impl Fn(Recipe) -> Recipe) -> Self {
        let (databases, agent) = (Databases::start().await, Agent::start().await);
        let names = NameServer::answering(ip_of("a")).await;
        names.answer_for("orders-ro", ip_of("b"));
        agent.writer_is("a");
        let recipe = change(recipe(name, &databases, &agent, &names));
        let haproxy = Haproxy::start(binary, recipe.into()).await.unwrap();
        Self { databases, agent, names, haproxy }
    }

    pub async fn open(&self) -> Connection {
        let address = Address::Unix(self.haproxy.admin_socket());
        Connection::open(&address, Limits::default()).await.unwrap()
    }

    pub async fn states(&self, backend: &str) -> Vec<ServerState> {
        self.open().await.servers_state(Some(backend)).await.unwrap()
    }

    /// Waits until exactly these servers of a backend take new sessions, and the backups.
    pub async fn usable(&self, backend: &str, servers: &[&str]) {
        wait_for(&format!("exactly {servers:?} of {backend}"), PATIENCE, async || {
            let states = self.states(backend).await;
            let usable = states.iter().filter(|state| state.takes_new_sessions());
            let usable: Vec<_> = usable.map(|state| &*state.server).collect();
            let primary: Vec<_> =
                usable.into_iter().filter(|name| !["wait", "cluster"].contains(name)).collect();
            if primary == servers { Ok(()) } else { Err(format!("{states:?}")) }
        })
        .await
        .unwrap();
    }

    /// Waits until HAProxy routes as the agent says.
    pub async fn routed(&self) {
        let writer = self.databases.writer();
        self.usable("orders_write", &[writer]).await;
        self.usable("orders_read", &[if writer == "a" { "b" } else { "a" }]).await;
    }

    /// The other of `a` and `b` becomes the writer; names follow.
    pub fn fail_over(&self) {
        let (old, new) = if self.databases.writer() == "a" { ("a", "b") } else { ("b", "a") };
        self.databases.promote(new);
        self.names.answer(ip_of(new));
        self.names.answer_for("orders-ro", ip_of(old));
    }

    pub async fn disturb(&mut self, disturbance: Disturbance) {
        match disturbance {
            Disturbance::Reload => return self.haproxy.reload().await.unwrap(),
            Disturbance::Restart => self.haproxy.stop().await.unwrap(),
            Disturbance::Kill => self.haproxy.kill(),
        }
        self.haproxy.start_again().await.unwrap();
    }

    /// New sessions by both ways, none of which may fail or reach the wrong role.
    pub async fn right_roles(&self, when: &str) {
        for (frontend, writer) in [("postgres_write", true), ("postgres_read", false)] {
            for _ in 0..4 {
                let reached = connect(self.haproxy.address(frontend)).await;
                let right = matches!(&reached, Ok(Reached { writer: is, .. }) if *is == writer);
                assert!(right, "{when}: {frontend}: {reached:?}");
            }
        }
    }

    pub fn folder(&self) -> PathBuf {
        self.haproxy.config_file().parent().unwrap().to_owned()
    }

    /// As the agent does: replaced at once, since HAProxy may read it at any time.
    pub async fn write_state_file(&self, is_own_drain: impl Fn(&str, &str) -> bool) {
        let file = self.open().await.state_file(is_own_drain).await.unwrap();
        let folder = self.folder();
        fs::write(folder.join("server-state.new"), file).unwrap();
        fs::rename(folder.join("server-state.new"), folder.join("server-state")).unwrap();
    }
}
