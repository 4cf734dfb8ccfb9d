//! The lab with a MariaDB.

use agent_core::Fault;
use agent_database::{
    Limits, LoginReport, Target, TlsTrust,
    mysql::{self, MySqlSession},
};
use integration_tests::standin::Engine;

pub use crate::lab::PATIENCE;
use crate::lab::{self, Client};

pub type Lab = lab::Lab<MySql>;

#[derive(Default)]
pub struct MySql;

impl Client for MySql {
    type Session = MySqlSession;

    fn engine(&self) -> Engine {
        Engine::Mariadb
    }

    async fn login(
        &self,
        target: &Target,
        trust: &TlsTrust,
        token: &str,
        limits: &Limits,
    ) -> (Result<MySqlSession, Fault>, LoginReport) {
        mysql::login(target, trust, token, limits).await
    }
}

impl Lab {
    /// Whether the server is a MariaDB: a MySQL can be put in its place.
    pub async fn is_mariadb(&self) -> bool {
        self.standin.value("a", "SELECT VERSION()").await.unwrap().contains("MariaDB")
    }

    /// The privilege to end the sessions of others, by its name in this server.
    pub async fn right_to_kill(&self) -> &'static str {
        if self.is_mariadb().await { "CONNECTION ADMIN" } else { "CONNECTION_ADMIN" }
    }
}
