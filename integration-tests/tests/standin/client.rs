//! A client of either engine, as far as these tests need one.

use integration_tests::{
    mysql::{self, Secret},
    standin::{Engine, StandIn},
};

/// A session, logged in over verified TLS.
pub enum Client {
    Postgresql(tokio_postgres::Client),
    Mariadb(mysql::Session),
}

/// The server's error, or that the connection ended without one.
#[derive(Debug)]
pub struct Refused {
    /// SQLSTATE on PostgreSQL, a number on MariaDB; `None`: the server said nothing.
    pub code: Option<String>,
    pub message: String,
}

impl From<tokio_postgres::Error> for Refused {
    fn from(error: tokio_postgres::Error) -> Self {
        let said = error.as_db_error().map(|said| said.message().to_owned());
        let message = said.unwrap_or_else(|| format!("{error:?}"));
        Self { code: error.code().map(|code| code.code().to_owned()), message }
    }
}

impl From<mysql::Error> for Refused {
    fn from(error: mysql::Error) -> Self {
        let code = error.code().map(|code| code.to_string());
        let message = match error {
            mysql::Error::Server { message, .. } => message,
            other => format!("{other:?}"),
        };
        Self { code, message }
    }
}

/// With a genuine token.
pub async fn log_in(standin: &StandIn, server: &str, user: &str) -> Result<Client, Refused> {
    let token = standin.token(server, user).unwrap();
    log_in_with(standin, server, user, Secret::Token(token)).await
}

pub async fn log_in_with(
    standin: &StandIn,
    server: &str,
    user: &str,
    secret: Secret,
) -> Result<Client, Refused> {
    match standin.engine() {
        Engine::Postgresql => {
            let mut login = standin.login(server, user).unwrap();
            match secret {
                Secret::Token(text) | Secret::Password(text) => login.password(text),
            };
            let (client, connection) = login.connect(standin.tls().unwrap()).await?;
            tokio::spawn(connection);
            Ok(Client::Postgresql(client))
        }
        Engine::Mariadb => {
            let mut login = standin.mysql_login(server, user).unwrap();
            login.secret = secret;
            Ok(Client::Mariadb(login.connect().await?))
        }
    }
}

impl Client {
    /// The first value that statements give; empty if it is null or there is none.
    pub async fn value(&mut self, sql: &str) -> Result<String, Refused> {
        match self {
            Client::Postgresql(client) => {
                let messages = client.simple_query(sql).await?;
                let first = messages.iter().find_map(|message| match message {
                    tokio_postgres::SimpleQueryMessage::Row(row) => row.get(0),
                    _ => None,
                });
                Ok(first.unwrap_or_default().to_owned())
            }
            Client::Mariadb(session) => Ok(session.value(sql).await?),
        }
    }
}
