//! The operator's pause, which survives a restart.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{StateError, file};

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pause {
    /// Seconds since 1970.
    pub since: u64,
    pub reason: String,
    /// The user who paused the agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
}

#[derive(Clone, Debug)]
pub struct PauseFile {
    path: PathBuf,
}

impl PauseFile {
    /// The pause in a state directory.
    pub fn in_directory(directory: &Path) -> Self {
        Self { path: directory.join("paused.json") }
    }

    pub fn load(&self) -> Result<Option<Pause>, StateError> {
        file::read(&self.path)
    }

    /// Writes the pause; `None` ends it.
    pub fn store(&self, pause: Option<&Pause>) -> Result<(), StateError> {
        match pause {
            Some(pause) => file::write(&self.path, pause),
            None => file::remove(&self.path),
        }
    }
}
