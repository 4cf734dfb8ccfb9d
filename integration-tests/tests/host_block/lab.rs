//! A server that blocks soon, the agent's logins to it, and clients that go half-way.

use std::{net::IpAddr, time::Duration};

use agent_core::{
    Fault, InstanceId,
    health::{ConnectErrors, Counted},
};
use agent_database::{
    Address, Limits, Target, TlsTrust,
    mysql::{self, MySqlSession},
};
use integration_tests::{
    haproxy::Haproxy,
    mysql::{Dial, Error},
    process::wait_for,
    standin::{Engine, Options, StandIn},
};
use tokio::{io::AsyncReadExt, net::TcpSocket};

pub const PATIENCE: Duration = Duration::from_secs(30);

/// So many failures block an address.
pub const LIMIT: u32 = 5;

/// Where the agent's logins come from, and other addresses of the proxy's.
pub const AGENT: &str = "127.0.0.2";
pub const CHECKED: &str = "127.0.0.3";

/// A MariaDB that blocks after [`LIMIT`] failures, and logins to it from any address.
pub struct Lab {
    pub standin: StandIn,
    trust: TlsTrust,
    target: Target,
}

impl Lab {
    pub async fn start(options: Options) -> Self {
        let options = Options { engine: Engine::Mariadb, replicas: 0, max_connect_errors: LIMIT, ..options };
        let standin = StandIn::start(options).await.unwrap();
        let trust = TlsTrust::from_file(standin.ca_file()).unwrap();
        let server = standin.server("a").unwrap();
        let endpoint = Address::new(server.endpoint(), server.connect().port());
        let target = Target::new(InstanceId::new("orders", "a"), endpoint, "lb_agent", "")
            .dialled_at(Address::new(&server.connect().ip().to_string(), server.connect().port()));
        Self { standin, trust, target }
    }

    /// The agent's full login from this address.
    pub async fn login(&self, source: &str, user: &str, token: &str) -> Result<MySqlSession, Fault> {
        let mut target = self.target.clone().dialled_from(ip(source));
        target.user = user.into();
        mysql::login(&target, &self.trust, token, &Limits::default()).await.0
    }

    pub async fn session(&self, source: &str) -> MySqlSession {
        let token = self.standin.token("a", "lb_agent").unwrap();
        self.login(source, "lb_agent", &token).await.unwrap()
    }

    /// A client that hears the greeting and goes, from this address.
    pub async fn goes_half_way(&self, source: &str) {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind((ip(source), 0).into()).unwrap();
        let mut stream = socket.connect(self.standin.server("a").unwrap().connect()).await.unwrap();
        stream.read_exact(&mut [0; 4]).await.unwrap();
    }

    /// An application's login through a proxy.
    pub async fn client(&self, haproxy: &Haproxy, frontend: &str) -> Result<(), Error> {
        let mut login = self.standin.mysql_login("a", "app").unwrap();
        login.dial = Dial::Tcp(haproxy.address(frontend));
        login.connect().await?.quit().await
    }

    pub async fn sql(&self, statement: &str) -> Vec<Vec<Option<String>>> {
        self.standin.execute_sql("a", statement).await.unwrap()
    }
}

pub fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

pub async fn errors(session: &mut MySqlSession) -> ConnectErrors {
    session.connect_errors().await.unwrap()
}

/// What is counted against an address, 0 if nothing.
pub fn of(seen: &ConnectErrors, address: &str) -> u64 {
    let Counted::ByAddress { addresses, .. } = &seen.counted else { panic!("{seen:?}") };
    addresses.get(&ip(address)).map_or(0, |counted| counted.errors)
}

/// The server counts when it has noticed.
pub async fn counted(session: &mut MySqlSession, address: &str, expected: u64) -> ConnectErrors {
    let session = tokio::sync::Mutex::new(session);
    let what = format!("{expected} errors of {address}");
    wait_for(&what, PATIENCE, async || {
        let seen = errors(*session.lock().await).await;
        if of(&seen, address) == expected { Ok(seen) } else { Err(format!("{seen:?}")) }
    })
    .await
    .unwrap()
}
