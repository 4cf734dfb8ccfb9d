//! One client session that the test controls; it never logs in again by itself.

use std::{
    io::ErrorKind,
    net::{self, Ipv4Addr, SocketAddr},
};

use integration_tests::{
    mysql::{self, Dial, Secret, Tls},
    process::wait_for,
    scene::{PATIENCE, Scene},
    standin::{DATABASE, Engine},
};
use tokio::{
    net::{TcpSocket, TcpStream},
    sync::Mutex,
    task::JoinHandle,
};
use tokio_postgres::{Config, Error, config::SslMode, tls::MakeTlsConnect};

/// What a retired client reads: an SQLSTATE, or from MariaDB just the end.
pub fn retired(engine: Engine) -> Option<&'static str> {
    match engine {
        Engine::Postgresql => Some("57P01"),
        Engine::Mariadb => None,
    }
}

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
    pub secret: Option<Secret>,
}

impl Login {
    /// The user `app`, through the proxy to the writer.
    pub fn through(scene: &Scene) -> Self {
        Self {
            user: "app",
            application: "by-hand",
            database: DATABASE,
            from: Ipv4Addr::LOCALHOST,
            to: scene.proxy.address("write"),
            secret: None,
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
        match scene.standin.engine() {
            Engine::Postgresql => self.postgresql(scene, stream).await,
            Engine::Mariadb => self.mariadb(scene, stream).await,
        }
    }

    fn secret(&self, scene: &Scene) -> Secret {
        self.secret.clone().unwrap_or_else(|| Secret::Token(scene.standin.cluster_token(self.user)))
    }

    async fn postgresql(self, scene: &Scene, stream: TcpStream) -> Client {
        let mut tls = scene.standin.tls().unwrap();
        let handshake =
            MakeTlsConnect::<TcpStream>::make_tls_connect(&mut tls, scene.standin.cluster_endpoint());
        let (Secret::Token(password) | Secret::Password(password)) = self.secret(scene);
        let (client, connection) = Config::new()
            .user(self.user)
            .password(password)
            .dbname(self.database)
            .application_name(self.application)
            .ssl_mode(SslMode::Require)
            .connect_raw(stream, handshake.unwrap())
            .await
            .unwrap();
        let wire = tokio::spawn(connection);
        let pid: i32 = client.query_one("SELECT pg_backend_pid()", &[]).await.unwrap().get(0);
        Client { session: Session::Postgresql { client, wire }, pid: pid.try_into().unwrap() }
    }

    async fn mariadb(self, scene: &Scene, stream: TcpStream) -> Client {
        let login = mysql::Login {
            dial: Dial::Tcp(self.to),
            from: None,
            tls: Some(Tls {
                config: scene.standin.tls().unwrap().config(),
                name: scene.standin.cluster_endpoint().to_owned(),
            }),
            user: self.user.to_owned(),
            secret: self.secret(scene),
            database: Some(self.database.to_owned()),
        };
        let stream = stream.into_std().unwrap();
        let socket = stream.try_clone().unwrap();
        let session = login.connect_on(TcpStream::from_std(stream).unwrap(), self.application).await.unwrap();
        let pid = u64::from(session.id());
        Client { session: Session::Mariadb { session: Mutex::new(session), socket }, pid }
    }
}

/// A session that is logged in.
pub struct Client {
    session: Session,
    /// The server's process or connection number for it.
    pub pid: u64,
}

enum Session {
    Postgresql {
        client: tokio_postgres::Client,
        wire: JoinHandle<Result<(), Error>>,
    },
    Mariadb {
        session: Mutex<mysql::Session>,
        /// The same socket, to look at it.
        socket: net::TcpStream,
    },
}

impl Client {
    /// Sends statements; they have to succeed.
    pub async fn execute(&self, sql: &str) {
        match &self.session {
            Session::Postgresql { client, .. } => client.batch_execute(sql).await.unwrap(),
            Session::Mariadb { session, .. } => drop(session.lock().await.query(sql).await.unwrap()),
        }
    }

    /// Whether it is still open.
    pub fn is_open(&self) -> bool {
        match &self.session {
            Session::Postgresql { wire, .. } => !wire.is_finished(),
            // Between two statements a server has nothing to say but the end.
            Session::Mariadb { socket, .. } => {
                socket.peek(&mut [0]).is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
            }
        }
    }

    /// Waits until it is closed: the server's error code, if it sent one.
    pub async fn closed(self) -> Option<String> {
        let what = format!("the end of the session {}", self.pid);
        wait_for(&what, PATIENCE, async || if self.is_open() { Err("it is open") } else { Ok(()) })
            .await
            .unwrap();
        match self.session {
            Session::Postgresql { wire, .. } => {
                wire.await.unwrap().err()?.code().map(|code| code.code().to_owned())
            }
            Session::Mariadb { session, .. } => {
                session.into_inner().unasked().await.code().map(|code| code.to_string())
            }
        }
    }
}
