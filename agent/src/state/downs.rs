//! The servers of HAProxy that are DOWN by the agent's answers.
//!
//! HAProxy keeps a server DOWN until it receives `up`. With this record the agent's stop, the next agent and
//! `release` know which servers to lift, also those that have left the configuration. It is written
//! after the answer, because a verdict never waits for the disk.

use std::{
    fmt,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::{StateError, file};

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DownRecord {
    /// HAProxy's runtime socket, as configured.
    pub socket: String,
    pub backend: String,
    pub server: String,
    pub reason: String,
    /// It is in a writer backend and not the last known writer: it is never lifted.
    pub by_role: bool,
}

impl DownRecord {
    /// What an operator types to lift it.
    pub fn command(&self) -> String {
        let Self { socket, backend, server, .. } = self;
        format!("echo 'set server {backend}/{server} agent up' | socat - {socket}")
    }
}

impl fmt::Display for DownRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{} at {}", self.backend, self.server, self.socket)
    }
}

/// The file of records.
#[derive(Clone, Debug)]
pub struct DownRecords {
    path: PathBuf,
}

impl DownRecords {
    /// The records in a state directory.
    pub fn in_directory(directory: &Path) -> Self {
        Self { path: directory.join("downs.json") }
    }

    pub fn load(&self) -> Result<Vec<DownRecord>, StateError> {
        Ok(file::read(&self.path)?.unwrap_or_default())
    }

    pub fn store(&self, records: &[DownRecord]) -> Result<(), StateError> {
        if records.is_empty() { file::remove(&self.path) } else { file::write(&self.path, &records) }
    }
}
