//! Clients of applications to look at, and what the agent sees of them.

use std::{future::Future, sync::Arc};

use agent_core::session::{Activity, ActivityRow};
use agent_database::{RetireTarget, Scope, Session as _, mysql::MySqlSession};
use integration_tests::{
    mysql::{Secret, Session},
    process::wait_for,
};
use tokio::net::TcpStream;

use super::lab::{Lab, PATIENCE};

impl Lab {
    /// A client of an application that logs in with a token.
    pub async fn client(&self, user: &str) -> Session {
        self.named_client(user, "").await
    }

    /// The same, with a name of its program.
    pub async fn named_client(&self, user: &str, program: &str) -> Session {
        let login = self.standin.mysql_login("a", user).unwrap();
        let address = self.standin.server("a").unwrap().connect();
        login.connect_on(TcpStream::connect(address).await.unwrap(), program).await.unwrap()
    }

    /// A client from another address of this machine.
    pub async fn client_from(&self, ip: [u8; 4], user: &str) -> Session {
        let mut login = self.standin.mysql_login("a", user).unwrap();
        login.from = Some(ip.into());
        login.connect().await.unwrap()
    }

    /// A client that logs in with a password.
    pub async fn password_client(&self) -> Session {
        let mut login = self.standin.mysql_login("a", "legacy").unwrap();
        let password = self.standin.legacy_password().to_owned();
        login.secret =
            if self.is_mariadb().await { Secret::Password(password) } else { Secret::Token(password) };
        login.connect().await.unwrap()
    }

    /// Runs a script of `deploy/mysql`, whose delimiters are for the command-line client.
    pub async fn script(&self, script: &str) {
        let lines = script.lines().filter(|line| !line.starts_with("DELIMITER"));
        let sql: String = lines
            .map(|line| line.strip_suffix("//").unwrap_or(line))
            .map(|line| {
                let ends = matches!(line.trim_end(), "END")
                    || line.starts_with("DROP PROCEDURE") && !line.ends_with(';');
                if ends { format!("{line};\n") } else { format!("{line}\n") }
            })
            .collect();
        self.sql(&sql).await;
    }
}

/// The row of a client's session.
pub async fn row(agent: &mut MySqlSession, client: u32) -> Option<ActivityRow> {
    let rows = agent.activity(Scope::All).await.unwrap();
    rows.into_iter().find(|row| row.key.pid == u64::from(client))
}

/// The same, once it is as expected.
pub async fn row_that(
    agent: &mut MySqlSession,
    client: u32,
    expected: impl Fn(&ActivityRow) -> bool,
) -> ActivityRow {
    let agent = Arc::new(tokio::sync::Mutex::new(agent));
    eventually("the session to be as expected", || async {
        match row(*agent.lock().await, client).await {
            Some(row) if expected(&row) => Ok(row),
            other => Err(format!("{other:?}")),
        }
    })
    .await
}

pub async fn eventually<T, F: Future<Output = Result<T, String>>>(what: &str, look: impl FnMut() -> F) -> T {
    wait_for(what, PATIENCE, look).await.unwrap()
}

pub fn idle(row: &ActivityRow) -> bool {
    matches!(row.activity, Activity::Idle(_))
}

/// What identifies the session of a row.
pub fn target_of(row: &ActivityRow) -> RetireTarget {
    RetireTarget {
        key: row.key,
        client: row.client.expect("a client address"),
        user: Arc::clone(&row.user),
        any_user: false,
    }
}
