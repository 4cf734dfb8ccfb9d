//! An open loop of clients: attempts start by a schedule, whatever became of those before.
//!
//! Each attempt is a connection of its own through the proxy: TLS, a login with a token, one short
//! transaction. Nothing is tried again: that is the proxy's part.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use fastrand::Rng;
use serde::Serialize;
use tokio::{
    net::TcpStream,
    time::{sleep, timeout},
};
use tokio_postgres::{Client, Config, SimpleQueryMessage, config::SslMode, tls::MakeTlsConnect};
use tokio_util::task::AbortOnDropHandle;

use super::{outcome::Outcome, script::Load};
use crate::{
    mysql::{self, Dial, Login, Secret, Session, Tls},
    standin::{DATABASE, Engine, StandIn},
    tls::VerifiedTls,
};

/// From the dial to the end of the login, as `connect_timeout` of libpq means it.
const LOGIN: Duration = Duration::from_secs(10);
/// A transaction takes half a second at most; longer than this it is lost.
const TRANSACTION: Duration = Duration::from_secs(10);
const SLOW: Duration = Duration::from_secs(5);

/// One attempt of the schedule.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Order {
    pub(crate) number: u32,
    /// After the start of the script.
    pub(crate) at: Duration,
    pub(crate) write: bool,
    /// How long the client thinks before COMMIT.
    pub(crate) thinks: Duration,
}

/// The same for the same seed.
pub(crate) fn schedule(seed: u64, load: Load, rate: u32, length: Duration) -> Vec<Order> {
    let mut random = Rng::with_seed(seed);
    let attempts = u32::try_from(length.as_secs()).unwrap_or(u32::MAX).saturating_mul(rate);
    (0..attempts)
        .map(|number| Order {
            number,
            at: (Duration::from_secs(1) * number + Duration::from_millis(random.u64(..800))) / rate,
            write: match load {
                Load::Writes => true,
                Load::Reads => false,
                Load::Both => random.bool(),
            },
            // Long enough that some are open when a fault strikes.
            thinks: Duration::from_millis(if random.u8(..4) == 0 { random.u64(100..400) } else { 0 }),
        })
        .collect()
}

/// What became of an attempt.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Done {
    pub(crate) number: u32,
    pub(crate) at_ms: u128,
    pub(crate) took_ms: u128,
    pub(crate) write: bool,
    pub(crate) outcome: Outcome,
    /// Where it ended and why; empty when all was well.
    pub(crate) reason: String,
    /// A read that the writer answered.
    pub(crate) on_writer: bool,
}

/// The clients of one arm.
pub(crate) struct Clients {
    pub(crate) standin: Arc<StandIn>,
    pub(crate) tls: VerifiedTls,
    pub(crate) write: SocketAddr,
    pub(crate) read: SocketAddr,
    /// Tells the rows of one arm from those of another.
    pub(crate) client: usize,
}

/// Where an attempt ended.
pub(crate) struct Failure {
    outcome: Outcome,
    pub(crate) reason: String,
}

impl Clients {
    /// Runs an attempt at its time.
    pub(crate) async fn attempt(&self, order: Order, start: Instant) -> Done {
        let due = start + order.at;
        sleep(due.saturating_duration_since(Instant::now())).await;
        let ended = self.run(order).await;
        let took = due.elapsed();
        let (outcome, reason, on_writer) = match ended {
            Ok(on_writer) if took > SLOW => (Outcome::Slow, String::new(), on_writer),
            Ok(on_writer) => (Outcome::Ok, String::new(), on_writer),
            Err(Failure { outcome, reason }) => (outcome, reason, false),
        };
        Done {
            number: order.number,
            at_ms: order.at.as_millis(),
            took_ms: took.as_millis(),
            write: order.write,
            outcome,
            reason,
            on_writer,
        }
    }

    /// Whether the writer answered a read.
    pub(crate) async fn run(&self, order: Order) -> Result<bool, Failure> {
        let failed =
            |reason: String| Failure { outcome: Outcome::Failed, reason: format!("login: {reason}") };
        let login = timeout(LOGIN, self.log_in(order.write)).await;
        let mut connection = login
            .map_err(|_| failed("no answer within 10 s".into()))?
            .map_err(|error| failed(error.said()))?;
        let transaction = timeout(TRANSACTION, self.transaction(&mut connection, order)).await;
        transaction.unwrap_or_else(|_| {
            Err(Failure { outcome: Outcome::Cut, reason: "transaction: no answer within 10 s".into() })
        })
    }

    async fn transaction(&self, connection: &mut Connection, order: Order) -> Result<bool, Failure> {
        let failure = |outcome, step: &str, error: &Error| {
            let outcome = if error.is_wrong_role() { Outcome::WrongRole } else { outcome };
            Failure { outcome, reason: format!("{step}: {}", error.said()) }
        };
        // Nothing has run before this is answered.
        connection.run("BEGIN").await.map_err(|error| failure(Outcome::Failed, "begin", &error))?;
        let statement = if order.write {
            format!("INSERT INTO orders (client, number) VALUES ({}, {})", self.client, order.number)
        } else {
            match self.standin.engine() {
                Engine::Postgresql => "SELECT pg_is_in_recovery()".into(),
                Engine::Mariadb => "SELECT @@read_only".into(),
            }
        };
        let answer = connection.run(&statement).await;
        let answer = answer.map_err(|error| failure(Outcome::Cut, "statement", &error))?;
        sleep(order.thinks).await;
        connection.run("COMMIT").await.map_err(|error| failure(Outcome::Cut, "commit", &error))?;
        Ok(!order.write && matches!(answer.as_deref(), Some("f" | "0")))
    }

    async fn log_in(&self, write: bool) -> Result<Connection, Error> {
        let dial = if write { self.write } else { self.read };
        let name = if write { self.standin.cluster_endpoint() } else { self.standin.reader_endpoint() };
        // Good for each server, whatever name was dialled.
        let token = self.standin.cluster_token("app");
        match self.standin.engine() {
            Engine::Postgresql => {
                let stream = TcpStream::connect(dial).await?;
                stream.set_nodelay(true)?;
                let mut tls = self.tls.clone();
                let handshake = MakeTlsConnect::<TcpStream>::make_tls_connect(&mut tls, name)?;
                let mut config = Config::new();
                config.user("app").password(token).dbname(DATABASE).ssl_mode(SslMode::Require);
                let (client, connection) = config.connect_raw(stream, handshake).await?;
                let wire = AbortOnDropHandle::new(tokio::spawn(async move {
                    let _ = connection.await;
                }));
                Ok(Connection::Postgresql(client, wire))
            }
            Engine::Mariadb => {
                let login = Login {
                    dial: Dial::Tcp(dial),
                    from: None,
                    tls: Some(Tls { config: self.tls.config(), name: name.to_owned() }),
                    user: "app".into(),
                    secret: Secret::Token(token),
                    database: Some(DATABASE.into()),
                };
                Ok(Connection::Mariadb(login.connect().await?))
            }
        }
    }
}

enum Connection {
    Postgresql(Client, #[allow(dead_code, reason = "held")] AbortOnDropHandle<()>),
    Mariadb(Session),
}

impl Connection {
    /// The first value of the first row.
    async fn run(&mut self, sql: &str) -> Result<Option<String>, Error> {
        match self {
            Self::Postgresql(client, _) => {
                let messages = client.simple_query(sql).await?;
                Ok(messages.iter().find_map(|message| match message {
                    SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
                    _ => None,
                }))
            }
            Self::Mariadb(session) => {
                let rows = session.query(sql).await?;
                Ok(rows.into_iter().flatten().next().flatten())
            }
        }
    }
}

#[derive(Debug, thiserror::Error)]
enum Error {
    #[error(transparent)]
    Io(#[from] std::io::Error),
    #[error(transparent)]
    Postgresql(#[from] tokio_postgres::Error),
    #[error(transparent)]
    Mariadb(#[from] mysql::Error),
}

impl Error {
    /// The server's code, or why there is none.
    fn said(&self) -> String {
        match self {
            Self::Io(error) => error.to_string(),
            Self::Postgresql(error) => match error.as_db_error() {
                Some(said) => format!("{} {}", said.code().code(), said.message()),
                None if error.is_closed() => "closed".into(),
                None => std::error::Error::source(error)
                    .map_or_else(|| error.to_string(), |source| format!("{error}: {source}")),
            },
            Self::Mariadb(error) => error.to_string(),
        }
    }

    fn is_wrong_role(&self) -> bool {
        match self {
            Self::Postgresql(error) => error.code().is_some_and(|code| code.code() == "25006"),
            Self::Mariadb(error) => error.code() == Some(1290),
            Self::Io(_) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_schedule_is_the_same_for_the_same_seed_and_in_order() {
        let one = schedule(7, Load::Both, 10, Duration::from_secs(10));
        let other = schedule(7, Load::Both, 10, Duration::from_secs(10));
        let key = |orders: &[Order]| orders.iter().map(|order| (order.at, order.write)).collect::<Vec<_>>();
        assert_eq!(key(&one), key(&other));
        assert_ne!(key(&one), key(&schedule(8, Load::Both, 10, Duration::from_secs(10))));
        assert_eq!(one.len(), 100);
        assert!(one.is_sorted_by_key(|order| order.at));
    }
}
