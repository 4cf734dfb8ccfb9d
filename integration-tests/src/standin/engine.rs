//! The operations that differ between the engines. Each dispatches to `postgresql` or `mariadb`.
//!
//! Not here: starting and freezing servers and keeping track of the writer, which are the same
//! for both.

use std::path::Path;

use clap::ValueEnum;
use serde::Serialize;

use super::{
    Error, Options, Server, SqlError, StopMode, mariadb, mysqld, postgresql,
    programs::{self, Programs},
};
use crate::process::{self, Launch, Signal};

/// The kind of servers that a stand-in runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Engine {
    /// PostgreSQL, with streaming replicas.
    #[default]
    Postgresql,
    /// MariaDB, with replicas by GTID.
    Mariadb,
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

pub(super) type Rows = Vec<Vec<Option<String>>>;

impl Engine {
    pub(super) fn find_programs(self) -> Result<Programs, process::Error> {
        match self {
            Engine::Postgresql => postgresql::find_programs(),
            Engine::Mariadb => mariadb::find_programs(),
        }
    }

    /// Compiles what its servers load: the library that asks about tokens, and what else.
    pub(super) async fn build_libraries(self, folder: &Path, logs: &Path) -> Result<(), process::Error> {
        programs::build_pam(folder, logs).await?;
        match self {
            Engine::Postgresql => Ok(()),
            Engine::Mariadb => {
                if mysqld::is_chosen() {
                    programs::build_plugin(folder, logs).await?;
                }
                programs::build_names(folder, logs).await
            }
        }
    }

    /// Lines of the configuration file that are the same for all servers, the operator's last:
    /// the last one counts.
    pub(super) fn settings(self, options: &Options) -> String {
        match self {
            Engine::Postgresql => postgresql::settings(options),
            Engine::Mariadb => mariadb::settings(options),
        }
    }

    /// Writes the files of a server's folder, except its data.
    pub(super) fn lay_out(self, server: &Server) -> Result<(), process::Error> {
        match self {
            Engine::Postgresql => postgresql::lay_out(server),
            Engine::Mariadb => mariadb::configure(server, None),
        }
    }

    /// All inputs of a template, except the engine's programs.
    pub(super) fn sources(self) -> Vec<String> {
        let own = match self {
            Engine::Postgresql => postgresql::sources(),
            Engine::Mariadb => mariadb::sources(),
        };
        let settings = self.settings(&Options::template()) + self.template_settings();
        programs::SOURCES.iter().map(|&source| source.to_owned()).chain(own).chain([settings]).collect()
    }

    /// Lines of the configuration file for the server that makes a template, after the others.
    pub(super) fn template_settings(self) -> &'static str {
        match self {
            Engine::Postgresql => "",
            Engine::Mariadb => mariadb::TEMPLATE_SETTINGS,
        }
    }

    /// Makes the data of a server with nothing in it, for a template.
    pub(super) async fn install(self, server: &Server) -> Result<(), process::Error> {
        match self {
            Engine::Postgresql => postgresql::install(server).await,
            Engine::Mariadb => mariadb::install(server).await,
        }
    }

    /// Makes the users and tables, for a template.
    pub(super) async fn set_up(self, server: &Server) -> Result<(), Error> {
        match self {
            Engine::Postgresql => postgresql::set_up(server).await,
            Engine::Mariadb => mariadb::set_up(server).await,
        }
    }

    /// Makes the data of a server as the template has it.
    pub(super) async fn initialise(self, server: &Server) -> Result<(), process::Error> {
        match self {
            Engine::Postgresql => server.copy_template().await,
            Engine::Mariadb => mariadb::initialise(server).await,
        }
    }

    /// Sets the passwords of this stand-in, on the writer.
    pub(super) async fn set_passwords(self, writer: &Server, legacy: &str) -> Result<(), Error> {
        let users = [("legacy", legacy), ("replicator", &writer.common().passwords.replicator)];
        match self {
            Engine::Postgresql => postgresql::set_passwords(writer, users).await,
            Engine::Mariadb => mariadb::set_passwords(writer, users).await,
        }
    }

    /// The server's own program, ready to be started.
    pub(super) fn launch(self, server: &Server) -> Launch {
        match self {
            Engine::Postgresql => postgresql::launch(server),
            Engine::Mariadb => mariadb::launch(server),
        }
    }

    /// The signal that stops a server so.
    pub(super) fn signal(self, mode: StopMode) -> Signal {
        match (self, mode) {
            (Engine::Postgresql, StopMode::Fast) => Signal::INT,
            (Engine::Postgresql, StopMode::Immediate) => Signal::QUIT,
            (Engine::Mariadb, StopMode::Fast) => Signal::TERM,
            (Engine::Mariadb, StopMode::Immediate) => Signal::KILL,
        }
    }

    /// Runs statements as superuser, through the Unix socket.
    pub(super) async fn execute(self, server: &Server, sql: &str) -> Result<Rows, SqlError> {
        Ok(match self {
            Engine::Postgresql => postgresql::execute(server, sql).await?,
            Engine::Mariadb => mariadb::execute(server, sql).await?,
        })
    }

    /// Whether a server takes writes.
    pub(super) async fn is_writer(self, server: &Server) -> Result<bool, Error> {
        Ok(match self {
            Engine::Postgresql => server.value("SELECT pg_is_in_recovery()").await? == "f",
            Engine::Mariadb => server.value("SELECT @@read_only").await? == "0",
        })
    }

    /// Stops a writer so that its replicas have all that it had, where they can.
    pub(super) async fn hand_over(self, writer: &Server) -> Result<(), Error> {
        match self {
            // It sends everything before it ends.
            Engine::Postgresql => writer.stop(StopMode::Fast).await,
            Engine::Mariadb => mariadb::hand_over(writer).await,
        }
    }

    /// Makes a replica take writes; it need not yet when this returns.
    pub(super) async fn promote(self, replica: &Server) -> Result<(), Error> {
        match self {
            Engine::Postgresql => postgresql::promote(replica).await,
            Engine::Mariadb => mariadb::promote(replica).await,
        }
    }

    /// Lets a running replica follow a writer, and waits until it does.
    pub(super) async fn follow(self, replica: &Server, writer: &Server) -> Result<(), Error> {
        match self {
            Engine::Postgresql => postgresql::follow(replica, writer).await,
            Engine::Mariadb => mariadb::follow(replica, writer).await,
        }
    }

    /// Starts a stopped server that was the writer as a replica of the new one.
    pub(super) async fn rejoin(self, old: &Server, writer: &Server) -> Result<(), Error> {
        match self {
            Engine::Postgresql => postgresql::make_replica(old, writer).await,
            Engine::Mariadb => mariadb::rejoin(old, writer).await,
        }
    }

    /// Starts a server that has never run as a replica of a writer that had the template's data.
    pub(super) async fn make_first_replica(self, server: &Server, writer: &Server) -> Result<(), Error> {
        match self {
            Engine::Postgresql => postgresql::make_first_replica(server, writer).await,
            Engine::Mariadb => mariadb::make_replica(server, writer).await,
        }
    }

    /// Starts a stopped server as a replica, with nothing of what it held.
    pub(super) async fn make_replica(self, server: &Server, writer: &Server) -> Result<(), Error> {
        match self {
            Engine::Postgresql => postgresql::make_replica(server, writer).await,
            Engine::Mariadb => mariadb::make_replica(server, writer).await,
        }
    }
}
