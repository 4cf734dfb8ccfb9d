//! One session by hand: it does what it is told, and never logs in again by itself.

use std::net::{Ipv4Addr, SocketAddr};

use integration_tests::{
    process::wait_for,
    scene::{PATIENCE, Scene},
    standin::DATABASE,
};
use tokio::{net::TcpSocket, task::JoinHandle};
use tokio_postgres::{Config, Error, config::SslMode, tls::MakeTlsConnect};

/// Who logs in, from where to where.
#[derive(Clone)]
pub struct Login {
    pub user: &'static str,
    pub application: &'static str,
    pub database: &'static str,
    /// The client's own address.
    pub from: Ipv4Addr,
    pub to: SocketAddr,
    /// Instead of a token signed now.
    pub password: Option<String>,
}

impl Login {
    /// The user `app`, through the proxy to the writer.
    pub fn through(scene: &Scene) -> Self {
        Self {
            user: "app",
            application: "by-hand",
            database: DATABASE,
            from: Ipv4Addr::LOCALHOST,
            to: scene.haproxy.address("write"),
            password: None,
        }
    }

    pub fn user(self, user: &'static str) -> Self {
        Self { user, ..self }
    }

    pub fn application(self, application: &'static str) -> Self {
        Self { application, ..self }
    }

    pub async fn open(self, scene: &Scene) -> Client {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(SocketAddr::from((self.from, 0))).unwrap();
        let stream = socket.connect(self.to).await.unwrap();
        let mut tls = scene.standin.tls().unwrap();
        let handshake = MakeTlsConnect::<tokio::net::TcpStream>::make_tls_connect(
            &mut tls,
            scene.standin.cluster_endpoint(),
        );
        let password = self.password.unwrap_or_else(|| scene.standin.cluster_token(self.user));
        let (postgres, connection) = Config::new()
            .user(self.user)
            .password(password)
            .dbname(self.database)
            .application_name(self.application)
            .ssl_mode(SslMode::Require)
            .connect_raw(stream, handshake.unwrap())
            .await
            .unwrap();
        let wire = tokio::spawn(connection);
        let pid: i32 = postgres.query_one("SELECT pg_backend_pid()", &[]).await.unwrap().get(0);
        Client { postgres, wire, pid: pid.try_into().unwrap() }
    }
}

/// A session that is logged in.
pub struct Client {
    postgres: tokio_postgres::Client,
    wire: JoinHandle<Result<(), Error>>,
    /// The server's process for it.
    pub pid: u64,
}

impl Client {
    /// Sends statements; they have to succeed.
    pub async fn execute(&self, sql: &str) {
        self.postgres.batch_execute(sql).await.unwrap();
    }

    /// Whether nobody has closed it.
    pub fn is_open(&self) -> bool {
        !self.wire.is_finished()
    }

    /// Waits until somebody closes it: the SQLSTATE that came with it, if one came.
    pub async fn closed(self) -> Option<String> {
        let what = format!("the end of the session {}", self.pid);
        wait_for(&what, PATIENCE, async || if self.is_open() { Err("it is open") } else { Ok(()) })
            .await
            .unwrap();
        let ending = self.wire.await.unwrap().err()?;
        ending.code().map(|code| code.code().to_owned())
    }
}
