//! The operator's pause: it outlives a restart, or it would be no pause.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{StateError, file};

/// Why and since when acting is paused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pause {
    /// Seconds since 1970.
    pub since: u64,
    /// The operator's words.
    pub reason: String,
}

/// The file that says so.
#[derive(Clone, Debug)]
pub struct PauseFile {
    path: PathBuf,
}

impl PauseFile {
    /// The pause in a state directory.
    pub fn in_directory(directory: &Path) -> Self {
        Self { path: directory.join("paused.json") }
    }

    /// The pause in force, if any.
    pub fn load(&self) -> Result<Option<Pause>, StateError> {
        file::read(&self.path)
    }

    /// Writes or lifts the pause.
    pub fn store(&self, pause: Option<&Pause>) -> Result<(), StateError> {
        match pause {
            Some(pause) => file::write(&self.path, pause),
            None => file::remove(&self.path),
        }
    }
}
