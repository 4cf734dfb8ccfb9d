//! A stand-in for RDS with IAM authentication: real PostgreSQL or MariaDB, real
//! tokens, no AWS.
//!
//! One writer and replicas, with TLS under a CA of their own and RDS-like names. Members of
//! `rds_iam` (users of `pam` on MariaDB) log in with a token that is verified inside the server's own login,
//! signature, expiry, host, port, user and the credential behind it; the credentials come
//! from an endpoint such as the one in ECS. All of it lives in a temporary folder and on
//! loopback addresses, and is removed when the [`StandIn`] is dropped.
//!
//! Not a model of RDS's control plane: it has no topology API. The keys are invented and give
//! access to nothing.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use integration_tests::standin::{Options, StandIn};
//!
//! let standin = StandIn::start(Options::default()).await?;
//! let (client, connection) = standin.login("a", "app")?.connect(standin.tls()?).await?;
//! # drop((client, connection));
//! standin.shutdown().await?;
//! # Ok(()) }
//! ```
//!
//! # Layout
//! - [`StandIn`]: starts and stops it; methods for faults and failovers
//! - [`Options`]: which [`Engine`], how large it is, how long credentials live
//! - [`CredentialsServer`]: the credentials endpoint and its ways to fail
//! - [`token`]: signing and verifying; each [`token::Refusal`] has its reason
//! - [`Journal`]: the attempted logins and their outcomes
//! - [`console`]: the same as commands over a socket; [`Summary`]: addresses, files, passwords
//! - `control`: promote, freeze, refuse, …
//! - `engine`: dispatches to `postgresql` or `mariadb` where the engines differ
//! - `server`, `programs`, `certificate`, `gate`: processes, binaries, TLS, token verification
//! - `template`: the data that all stand-ins copy

mod certificate;
pub mod console;
mod control;
pub mod credential;
mod endpoint;
mod engine;
mod gate;
mod journal;
mod mariadb;
mod mysqld;
mod options;
mod postgresql;
mod programs;
mod server;
mod summary;
mod template;
pub mod token;

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use futures_util::future::try_join_all;
use jiff::Timestamp;
use tempfile::TempDir;
use tokio_postgres::config::SslMode;

use self::{
    certificate::Authority,
    credential::{Issuer, random_byte, random_text},
    gate::{Door, Gate},
    server::{Common, Passwords},
    token::Purpose,
};
pub use self::{
    endpoint::{Behaviour, CredentialsServer},
    engine::Engine,
    journal::{Journal, LoginAttempt, busiest_second},
    options::Options,
    server::{DATABASE, Server, StopMode},
    summary::{ServerSummary, Summary},
};
use crate::{
    mysql::{self, Dial, Login, Secret, Tls},
    process::{self, Account, free_port_on},
    tls::VerifiedTls,
    tools::guardian::Guardian,
};

/// Why the stand-in could not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A program, a file or a deadline.
    #[error(transparent)]
    Process(#[from] process::Error),
    /// A statement as superuser.
    #[error("server {server}: {source}")]
    Sql { server: String, source: SqlError },
    /// Replication from the writer has stopped for good.
    #[error("server {server} cannot follow: {reason}")]
    CannotFollow { server: String, reason: String },
    #[error("make certificates: {0}")]
    Certificates(#[from] rcgen::Error),
    #[error("there is no server {0}")]
    NoSuchServer(String),
    /// The caller's fault: it was stopped.
    #[error("server {0} does not run")]
    NotRunning(String),
    /// The caller's fault: it was frozen, and would not answer.
    #[error("server {0} is frozen")]
    Frozen(String),
    /// The caller's fault: it cannot follow itself.
    #[error("server {0} is the writer")]
    IsTheWriter(String),
    #[error("options: {0}")]
    Options(&'static str),
}

/// Why a statement as superuser failed.
#[derive(Debug, thiserror::Error)]
pub enum SqlError {
    #[error("{}", said(.0))]
    Postgresql(#[from] tokio_postgres::Error),
    #[error(transparent)]
    Mariadb(#[from] mysql::Error),
}

/// The server's message, if there is one: the error itself only prints "db error".
fn said(error: &tokio_postgres::Error) -> String {
    error
        .as_db_error()
        .map_or_else(|| error.to_string(), |error| format!("{}: {}", error.code().code(), error.message()))
}

/// A running stand-in.
///
/// [`StandIn::shutdown`] stops it and returns errors; dropping it stops it too, and blocks
/// briefly.
#[derive(Debug)]
pub struct StandIn {
    engine: Engine,
    servers: Vec<Server>,
    writer: Mutex<String>,
    common: Arc<Common>,
    region: String,
    cluster_endpoint: String,
    reader_endpoint: String,
    legacy_password: String,
    credentials: CredentialsServer,
    gate: Gate,
    journal: Arc<Journal>,
    /// After the servers, whose files it has.
    folder: TempDir,
    /// Last: it looks at what is left of the folder.
    guardian: Guardian,
}

// === starting and stopping ===

impl StandIn {
    /// Starts everything, and waits until every replica streams.
    pub async fn start(options: Options) -> Result<Self, Error> {
        let standin = Self::lay_out(options).await?;
        // From here on, dropping it stops what was started.
        standin.run().await?;
        Ok(standin)
    }

    async fn lay_out(options: Options) -> Result<Self, Error> {
        options.check()?;
        let now = Timestamp::now();
        let account = Account::unprivileged()?;
        let folder = temporary_folder()?;
        let root = folder.path();
        let guardian = Guardian::watch(root)?;
        let sub_folder = |name: &str| {
            let path = root.join(name);
            fs::create_dir(&path)
                .and_then(|()| fs::set_permissions(&path, fs::Permissions::from_mode(0o755)))
                .map_err(process::Error::io(format!("make the folder {}", path.display())))?;
            Ok::<_, Error>(path)
        };

        let authority = Authority::new(now)?;
        let driver = options.engine.driver();
        let mut common = Common {
            driver,
            programs: driver.find_programs()?,
            account,
            logs: sub_folder("log")?,
            libraries: root.join("lib"),
            template: PathBuf::new(),
            gate: root.join("gate.sock"),
            ca_file: root.join("ca.pem"),
            passwords: Passwords { replicator: password(), superuser: password() },
            settings: driver.settings(&options),
            names: options.names.clone(),
        };
        server::write(&common.ca_file, &authority.pem(), 0o644, None)?;
        let template = template::provide(&common, &authority, root).await?;
        server::copy_folder(&template.join("lib"), &common.libraries, &common.logs).await?;
        common.template = template.join("data");
        let common = Arc::new(common);

        let names: Vec<String> = ('a'..='z').take(options.servers()).map(String::from).collect();
        let addresses = loopback_addresses(names.len());
        let port = match options.port {
            Some(port) => port,
            None => free_port_on(&addresses)?,
        };
        let (cluster_endpoint, reader_endpoint) = (options.cluster_endpoint(), options.reader_endpoint());
        let mut servers = Vec::new();
        let mut doors = Vec::new();
        for (name, address) in names.into_iter().zip(addresses) {
            let endpoint = options.endpoint(&name);
            let known_as = vec![endpoint.clone(), cluster_endpoint.clone(), reader_endpoint.clone()];
            let certificate = authority.certify(&known_as, now)?;
            let (server, region) = (name.clone(), options.region.clone());
            doors.push(Door { server, names: known_as, port, region });
            let connect = SocketAddr::new(address, port);
            servers.push(Server::new(
                common.clone(),
                root.join(&name),
                name,
                endpoint,
                connect,
                &certificate,
            )?);
        }

        let issuer = Arc::new(Issuer::new(options.credential_life, options.renew_before()));
        let journal = Arc::new(Journal::default());
        let gate = Gate::open(&common.gate, common.account.as_ref(), doors, issuer.clone(), journal.clone())?;
        Ok(Self {
            engine: options.engine,
            writer: Mutex::new(servers.first().map(|first| first.name().to_owned()).unwrap_or_default()),
            servers,
            common,
            region: options.region,
            cluster_endpoint,
            reader_endpoint,
            legacy_password: password(),
            credentials: CredentialsServer::start(issuer)?,
            gate,
            journal,
            folder,
            guardian,
        })
    }

    async fn run(&self) -> Result<(), Error> {
        let writer = self.writer()?;
        let users =
            [("legacy", self.legacy_password.as_str()), ("replicator", &self.common.passwords.replicator)];
        self.common.driver.initialise(writer).await?;
        writer.start().await?;
        self.common.driver.set_passwords(writer, users).await?;
        let replicas = self.servers.iter().filter(|server| server.name() != writer.name());
        try_join_all(replicas.map(|replica| self.common.driver.make_first_replica(replica, writer))).await?;
        Ok(())
    }

    /// Stops everything and removes its folder.
    ///
    /// # Errors
    /// A server that had to be killed, a folder that could not be removed. All is tried
    /// whatever fails first.
    pub async fn shutdown(self) -> Result<(), Error> {
        let mut outcome = Ok(());
        for server in &self.servers {
            // What they hold is thrown away, so there is nothing to end cleanly.
            outcome = outcome.and(server.stop(StopMode::Immediate).await);
        }
        let Self { servers, folder, guardian, .. } = self;
        drop(servers);
        let path = folder.path().to_owned();
        let removed = folder.close().map_err(process::Error::io(format!("remove {}", path.display())));
        drop(guardian);
        outcome.and(removed.map_err(Error::from))
    }
}

// === what it is ===

impl StandIn {
    /// What the servers are.
    pub fn engine(&self) -> Engine {
        self.engine
    }

    /// All servers, by name.
    pub fn servers(&self) -> &[Server] {
        &self.servers
    }

    /// A server by its name.
    pub fn server(&self, name: &str) -> Result<&Server, Error> {
        let found = self.servers.iter().find(|server| server.name() == name);
        found.ok_or_else(|| Error::NoSuchServer(name.to_owned()))
    }

    /// The server that was made the writer last.
    pub fn writer(&self) -> Result<&Server, Error> {
        let name = self.writer.lock().unwrap_or_else(PoisonError::into_inner).clone();
        self.server(&name)
    }

    /// The name of the cluster's writer endpoint. It resolves to nothing; each server's
    /// certificate has it, and takes tokens that are signed for it.
    pub fn cluster_endpoint(&self) -> &str {
        &self.cluster_endpoint
    }

    /// The name of the cluster's reader endpoint, as [`StandIn::cluster_endpoint`].
    pub fn reader_endpoint(&self) -> &str {
        &self.reader_endpoint
    }

    /// The region that tokens have to be signed for.
    pub fn region(&self) -> &str {
        &self.region
    }

    /// The CA that clients have to trust, in PEM.
    pub fn ca_file(&self) -> &Path {
        &self.common.ca_file
    }

    /// TLS that verifies this stand-in's servers.
    pub fn tls(&self) -> Result<VerifiedTls, Error> {
        let what = format!("read {}", self.ca_file().display());
        Ok(VerifiedTls::from_ca_file(self.ca_file()).map_err(process::Error::io(what))?)
    }

    /// The folder of its files, where a test may add others. Removed with the stand-in.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The environment that an agent or a client needs to get credentials from here, and
    /// from no profile or instance: names and values. Keys in its own environment
    /// (`AWS_ACCESS_KEY_ID`) would still come first: start it with a clean one.
    pub fn environment(&self) -> Vec<(String, String)> {
        let mut environment = self.credentials.environment();
        environment.push(("AWS_REGION".to_owned(), self.region.clone()));
        for (name, value) in [
            ("AWS_EC2_METADATA_DISABLED", "true"),
            ("AWS_CONFIG_FILE", "/dev/null"),
            ("AWS_SHARED_CREDENTIALS_FILE", "/dev/null"),
        ] {
            environment.push((name.to_owned(), value.to_owned()));
        }
        environment
    }

    /// The credentials endpoint: to rotate, to revoke, to make it fail.
    pub fn credentials(&self) -> &CredentialsServer {
        &self.credentials
    }

    /// The logins that were tried with tokens.
    pub fn journal(&self) -> &Journal {
        &self.journal
    }

    /// The password of the user `legacy`.
    pub fn legacy_password(&self) -> &str {
        &self.legacy_password
    }

    /// A genuine token for a server, signed now with the credentials now served.
    pub fn token(&self, server: &str, user: &str) -> Result<String, Error> {
        Ok(self.token_for(self.server(server)?.endpoint(), user))
    }

    /// A genuine token that is good for each server, signed for the cluster endpoint.
    pub fn cluster_token(&self, user: &str) -> String {
        self.token_for(&self.cluster_endpoint, user)
    }

    fn token_for(&self, host: &str, user: &str) -> String {
        let now = Timestamp::now();
        let port = self.servers.first().map_or(0, |server| server.connect().port());
        let purpose = Purpose { host, port, region: &self.region, user };
        token::sign(&self.credentials.issuer().current(now), &purpose, now)
    }

    /// A login to a PostgreSQL server's database `orders`, as `user`, with a genuine token that
    /// is good for some minutes: to be connected with [`StandIn::tls`].
    pub fn login(&self, server: &str, user: &str) -> Result<tokio_postgres::Config, Error> {
        let token = self.token(server, user)?;
        let server = self.server(server)?;
        let mut login = tokio_postgres::Config::new();
        login
            .host(server.endpoint())
            .hostaddr(server.connect().ip())
            .port(server.connect().port())
            .user(user)
            .password(token)
            .dbname(DATABASE)
            .ssl_mode(SslMode::Require);
        Ok(login)
    }

    /// [`StandIn::login`] to a MariaDB server; the agent's users, who have no rights in the
    /// database `orders`, log in without one.
    pub fn mysql_login(&self, server: &str, user: &str) -> Result<Login, Error> {
        let token = self.token(server, user)?;
        let server = self.server(server)?;
        Ok(Login {
            dial: Dial::Tcp(server.connect()),
            from: None,
            tls: Some(Tls { config: self.tls()?.config(), name: server.endpoint().to_owned() }),
            user: user.to_owned(),
            secret: Secret::Token(token),
            database: (!user.starts_with("lb_agent")).then(|| DATABASE.to_owned()),
        })
    }
}

/// World-readable: the servers of an unprivileged user read in it.
fn temporary_folder() -> Result<TempDir, Error> {
    let what = || process::Error::io("make a temporary folder");
    let folder = tempfile::Builder::new().prefix("iam-standin-").tempdir().map_err(what())?;
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).map_err(what())?;
    Ok(folder)
}

/// Addresses of the loopback network that hardly anybody else uses.
fn loopback_addresses(count: usize) -> Vec<IpAddr> {
    let network = 1 + random_byte() % 254;
    (1..=254).take(count).map(|host| IpAddr::V4(Ipv4Addr::new(127, 0, network, host))).collect()
}

fn password() -> String {
    random_text(24, b"abcdefghijklmnopqrstuvwxyz0123456789")
}
