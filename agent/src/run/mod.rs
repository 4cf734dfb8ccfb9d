//! The agent process: start, reload, stop.
//!
//! - [`start`]: from the configuration file to a running agent, its main loop, and its end.
//! - [`reload`]: whether changed files make a configuration that can be applied as a whole.
//! - [`generation`]: the decider and all tasks of one configuration. [`tasks`] creates the tasks,
//!   [`database`] those of a database, [`envoy`] those of Envoys, [`logins`] what databases are logged in with.
//! - [`records`]: what the state directory holds at a start, and recorded drains at the end.
//! - [`listeners`]: ports and sockets, which outlive reloads.
//!   [`inherited`]: those that systemd opened before.
//! - [`watch`]: signals and changes of files. [`authorities`]: the CA files of a configuration.
//! - [`logging`]: log lines on standard error. [`collapse`]: the limit for lines of one kind.

mod authorities;
mod collapse;
mod database;
mod envoy;
mod generation;
mod inherited;
mod listeners;
mod logging;
mod logins;
mod records;
mod reload;
mod start;
mod supervisor;
mod tasks;
#[cfg(test)]
mod testing;
mod watch;

use std::{io, pin::Pin};

pub use records::write_state_files;
pub use start::run;

use crate::{config::Problems, state::StateError};

/// Commands that may wait in the queue of one task.
const COMMANDS: usize = 1_024;

/// A task that runs until it is dropped.
type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Why the agent did not start, or ended without being asked to.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error("{0}")]
    Config(#[from] Problems),
    /// The configuration is valid, but something that it names cannot be used.
    #[error("{0}")]
    Setup(String),
    #[error("{0}")]
    State(#[from] StateError),
    /// A task panicked or ended. The supervisor has to restart the agent.
    #[error("internal error, please report it: {0}")]
    Internal(String),
    #[error(
        "cannot listen on {address} for {purpose}: {source}; choose another address in `listen`, or stop the process that uses it"
    )]
    Listen { address: String, purpose: &'static str, source: io::Error },
}
