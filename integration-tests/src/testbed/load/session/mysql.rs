//! A MySQL or MariaDB connection, driven by its client alone.
//!
//! Over the tests' own [`mysql`](crate::mysql) client: no driver of that protocol lets its
//! socket be looked at. It never connects anew and sends only the given statements.

use std::future::pending;

use tokio::net::TcpStream;

use super::Ending;
use crate::{
    load::Target,
    mysql::{Dial, Error, Login, Secret, Session, Tls},
};

/// What MariaDB says to the client of a session that was killed.
pub(super) const KILLED: &str = "1927";

/// A connection that is logged in.
pub(super) struct Connection {
    session: Session,
    ended: Option<Ending>,
}

impl Ending {
    fn of_mysql(error: &Error) -> Self {
        match error {
            Error::Server { code, .. } => Ending::Told(code.to_string()),
            Error::Connection(_) => Ending::Closed,
            Error::Protocol(what) => Ending::Told((*what).to_owned()),
        }
    }
}

impl Connection {
    /// Verifies and logs in on what was dialled: the connection, and the server's number for it.
    pub(super) async fn log_in(
        target: &Target,
        application: &str,
        token: String,
        stream: TcpStream,
    ) -> Result<(Self, u64), String> {
        let login = Login {
            dial: Dial::Tcp(target.dial),
            from: None,
            tls: Some(Tls { config: target.tls.config(), name: target.endpoint.clone() }),
            user: target.user.clone(),
            secret: if target.has_password { Secret::Password(token) } else { Secret::Token(token) },
            database: Some(target.database.clone()),
        };
        let session = login.connect_on(stream, application).await.map_err(|error| match error {
            Error::Server { code, .. } => code.to_string(),
            other => other.to_string(),
        })?;
        let number = u64::from(session.id());
        Ok((Self { session, ended: None }, number))
    }

    pub(super) async fn ask(&mut self, sql: &str) -> Result<Option<String>, Ending> {
        match self.session.query(sql).await {
            Ok(rows) => Ok(rows.into_iter().flatten().next().flatten()),
            Err(error) => {
                let ending = Ending::of_mysql(&error);
                if !matches!(error, Error::Server { .. }) {
                    self.ended = Some(ending.clone());
                }
                Err(ending)
            }
        }
    }

    pub(super) fn ended(&self) -> Option<&Ending> {
        self.ended.as_ref()
    }

    pub(super) fn end(&mut self, ending: Ending) {
        self.ended = Some(ending);
    }

    /// Waits for what was not asked for, which is the end. Never, once ended.
    pub(super) async fn message(&mut self) {
        if self.ended.is_some() {
            return pending().await;
        }
        let error = self.session.unasked().await;
        self.ended = Some(Ending::of_mysql(&error));
    }

    pub(super) async fn close(self) {
        // A session that was closed meanwhile cannot quit.
        let _ = self.session.quit().await;
    }
}
