//! The last proven role of each instance, so that a restart says at once who was well.
//! It may be of any age: it never takes a server away.

use std::path::{Path, PathBuf};

use agent_core::health::Remembered;

use super::{StateError, file};

/// The file of it.
#[derive(Clone, Debug)]
pub struct MemoryFile {
    path: PathBuf,
}

impl MemoryFile {
    /// The memory in a state directory.
    pub fn in_directory(directory: &Path) -> Self {
        Self { path: directory.join("instances.json") }
    }

    /// What is remembered; nothing when the file is missing.
    pub fn load(&self) -> Result<Vec<Remembered>, StateError> {
        Ok(file::read(&self.path)?.unwrap_or_default())
    }

    /// Replaces it.
    pub fn store(&self, remembered: &[Remembered]) -> Result<(), StateError> {
        file::write(&self.path, &remembered)
    }
}
