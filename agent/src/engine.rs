//! The implementation for the engine of a configured database.

use std::sync::Arc;

use agent_database::{
    Engine,
    mysql::{MySql, OpenTransactions},
    postgresql::Postgresql,
};

use crate::config::{Database, file};

pub fn of(database: &Database) -> Arc<dyn Engine> {
    match database.engine {
        file::Engine::Postgresql => Arc::new(Postgresql),
        file::Engine::Mysql | file::Engine::Mariadb => Arc::new(MySql {
            open_transactions: match database.open_transactions {
                file::OpenTransactions::PerformanceSchema => OpenTransactions::PerformanceSchema,
                file::OpenTransactions::InnodbTrx => OpenTransactions::InnodbTrx,
                file::OpenTransactions::Strict => OpenTransactions::Strict,
            },
        }),
    }
}

/// Whether its servers block client addresses after too many connect errors.
pub fn blocks_hosts(database: &Database) -> bool {
    database.engine != file::Engine::Postgresql
}
