//! The last proven role of each instance, for answers right after a restart. It may be of any age, so it
//! never takes a server out of rotation.

use std::path::{Path, PathBuf};

use agent_core::health::Remembered;

use super::{StateError, file};

#[derive(Clone, Debug)]
pub struct MemoryFile {
    path: PathBuf,
}

impl MemoryFile {
    /// The memory in a state directory.
    pub fn in_directory(directory: &Path) -> Self {
        Self { path: directory.join("instances.json") }
    }

    pub fn load(&self) -> Result<Vec<Remembered>, StateError> {
        Ok(file::read(&self.path)?.unwrap_or_default())
    }

    pub fn store(&self, remembered: &[Remembered]) -> Result<(), StateError> {
        file::write(&self.path, &remembered)
    }
}
