//! One client session that the test controls; it never logs in again by itself.

use std::{net::SocketAddr, time::Duration};

use integration_tests::{
    process::wait_for,
    standin::{DATABASE, StandIn},
};
use tokio::{net::TcpStream, task::JoinHandle, time::timeout};
use tokio_postgres::{Config, Error, config::SslMode, tls::MakeTlsConnect};

use crate::lab::PATIENCE;

/// How long a login may take: a connection that goes nowhere is tried for 5 s, twice.
const LOGIN_PATIENCE: Duration = Duration::from_secs(15);

/// A session that is logged in.
pub struct Client {
    postgres: tokio_postgres::Client,
    wire: JoinHandle<Result<(), Error>>,
    /// The instance it reached.
    pub instance: String,
    /// Its own process there, which names it in the agent's list.
    pub pid: i32,
}

impl Client {
    /// Logs in as `app` with a token for the cluster endpoint, whatever is dialled.
    pub async fn login(standin: &StandIn, dial: SocketAddr) -> Result<Self, String> {
        let login = async {
            let stream = TcpStream::connect(dial).await.map_err(|error| error.to_string())?;
            let mut tls = standin.tls().map_err(|error| error.to_string())?;
            let name = standin.cluster_endpoint();
            let handshake = MakeTlsConnect::<TcpStream>::make_tls_connect(&mut tls, name).unwrap();
            let said = |error: Error| format!("{error:?}");
            let (postgres, connection) = Config::new()
                .user("app")
                .password(standin.cluster_token("app"))
                .dbname(DATABASE)
                .ssl_mode(SslMode::Require)
                .connect_raw(stream, handshake)
                .await
                .map_err(said)?;
            let wire = tokio::spawn(connection);
            let reached = "SELECT host(inet_server_addr()), pg_backend_pid()";
            let row = postgres.query_one(reached, &[]).await.map_err(said)?;
            let (ip, pid): (String, i32) = (row.get(0), row.get(1));
            let at = standin.servers().iter().find(|server| server.connect().ip().to_string() == ip);
            let instance = at.map_or(ip, |server| server.name().to_owned());
            Ok(Self { postgres, wire, instance, pid })
        };
        timeout(LOGIN_PATIENCE, login).await.unwrap_or_else(|_| Err("the login hangs".to_owned()))
    }

    /// Whether it still works: a statement succeeds.
    pub async fn works(&self) -> bool {
        !self.wire.is_finished() && self.postgres.simple_query("SELECT 1").await.is_ok()
    }
}

/// Waits until `times` new sessions in a row go to this instance, and says how long the first
/// of them took to come. No login may fail meanwhile.
pub async fn new_sessions_reach(
    standin: &StandIn,
    dial: SocketAddr,
    instance: &str,
    patience: Duration,
) -> Duration {
    let began = std::time::Instant::now();
    wait_for(&format!("new sessions on {instance}"), patience, async || {
        let client = Client::login(standin, dial).await.unwrap();
        if client.instance == instance { Ok(()) } else { Err(format!("one on {}", client.instance)) }
    })
    .await
    .unwrap();
    began.elapsed()
}

/// Waits until so many new sessions reach these instances and no others. Envoy checks its endpoints one by one, so the
/// first session on a new one does not mean that none reaches an old one any more.
pub async fn new_sessions_settle(standin: &StandIn, dial: SocketAddr, count: usize, instances: &[&str]) {
    wait_for(&format!("new sessions on {instances:?} alone"), PATIENCE, async || {
        let reached = instances_of_new_sessions(standin, dial, count).await;
        if reached == instances { Ok(()) } else { Err(format!("some on {reached:?}")) }
    })
    .await
    .unwrap();
}

/// So many new sessions, all of which have to log in: the instances they reached.
pub async fn instances_of_new_sessions(standin: &StandIn, dial: SocketAddr, count: usize) -> Vec<String> {
    let mut reached = Vec::new();
    for _ in 0..count {
        reached.push(Client::login(standin, dial).await.unwrap().instance);
    }
    reached.sort();
    reached.dedup();
    reached
}
