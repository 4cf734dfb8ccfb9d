//! The operations that differ between the engines.
//!
//! Not here: starting and freezing servers and keeping track of the writer, which are the same
//! for all.

use std::{fmt::Debug, path::Path};

use async_trait::async_trait;

use super::{Server, StopMode};
use crate::{
    process::{self, Launch, Signal},
    standin::{Error, Options, SqlError, programs::Programs},
};

pub(in crate::standin) type Rows = Vec<Vec<Option<String>>>;

/// One engine: its programs, its settings, its replication.
#[async_trait]
pub(in crate::standin) trait Driver: Debug + Send + Sync {
    /// In the name of its templates' folder.
    fn name(&self) -> &'static str;

    fn find_programs(&self) -> Result<Programs, process::Error>;

    /// Compiles what its servers load.
    async fn build_libraries(&self, folder: &Path, logs: &Path) -> Result<(), process::Error>;

    /// Lines of the configuration file that are the same for all servers, the operator's last:
    /// the last one counts.
    fn settings(&self, options: &Options) -> String;

    /// Lines of the configuration file for the server that makes a template, after the others.
    fn template_settings(&self) -> &'static str {
        ""
    }

    /// What a template is made from: scripts and statements.
    fn sources(&self) -> Vec<String>;

    /// Writes the files of a server's folder, except its data.
    fn lay_out(&self, server: &Server) -> Result<(), process::Error>;

    /// Makes the data of a server with nothing in it, for a template.
    async fn install(&self, server: &Server) -> Result<(), process::Error>;

    /// Makes the users and tables, for a template.
    async fn set_up(&self, server: &Server) -> Result<(), Error>;

    /// Makes the data of a server as the template has it.
    async fn initialise(&self, server: &Server) -> Result<(), process::Error> {
        server.copy_template().await
    }

    /// Sets the passwords of users, on the writer.
    async fn set_passwords(&self, writer: &Server, users: [(&str, &str); 2]) -> Result<(), Error>;

    /// The server's own program, ready to be started.
    fn launch(&self, server: &Server) -> Launch;

    /// The signal that stops a server so.
    fn signal(&self, mode: StopMode) -> Signal;

    /// Runs statements as superuser, through the Unix socket if the engine can.
    async fn execute(&self, server: &Server, sql: &str) -> Result<Rows, SqlError>;

    /// Whether a server takes writes.
    async fn is_writer(&self, server: &Server) -> Result<bool, Error>;

    /// Stops a writer so that its replicas have all that it had, where they can.
    async fn hand_over(&self, writer: &Server) -> Result<(), Error>;

    /// Makes a replica take writes; it need not yet when this returns.
    async fn promote(&self, replica: &Server) -> Result<(), Error>;

    /// Lets a running replica follow a writer, and waits until it does.
    async fn follow(&self, replica: &Server, writer: &Server) -> Result<(), Error>;

    /// Starts a stopped server that was the writer as a replica of the new one.
    async fn rejoin(&self, old: &Server, writer: &Server) -> Result<(), Error> {
        self.make_replica(old, writer).await
    }

    /// Starts a server that has never run as a replica of a writer that had the template's data.
    async fn make_first_replica(&self, server: &Server, writer: &Server) -> Result<(), Error> {
        self.make_replica(server, writer).await
    }

    /// Starts a stopped server as a replica, with nothing of what it held.
    async fn make_replica(&self, server: &Server, writer: &Server) -> Result<(), Error>;
}
