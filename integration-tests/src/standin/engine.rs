//! The choice of engine, by tests and on the command line.

use clap::ValueEnum;
use serde::Serialize;

use super::{mariadb::Mariadb, mysqld::Mysqld, postgresql::Postgresql, server::Driver};

/// The kind of servers that a stand-in runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Engine {
    /// PostgreSQL, with streaming replicas.
    #[default]
    Postgresql,
    /// MariaDB, with replicas by GTID; or a MySQL without replicas, if the environment names one.
    Mariadb,
}

impl Engine {
    pub(super) fn driver(self) -> &'static dyn Driver {
        match self {
            Self::Postgresql => &Postgresql,
            Self::Mariadb if Mysqld::is_chosen() => &Mysqld,
            Self::Mariadb => &Mariadb,
        }
    }
}

/// Defines a test per engine for each of these functions, which take the engine.
#[macro_export]
macro_rules! on_each_engine {
    ($($test:ident),+ $(,)?) => {
        mod postgresql {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() {
                super::$test($crate::standin::Engine::Postgresql).await;
            })+
        }
        mod mariadb {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() {
                super::$test($crate::standin::Engine::Mariadb).await;
            })+
        }
    };
}
