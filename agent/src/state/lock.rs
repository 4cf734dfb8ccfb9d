//! One agent per state directory: two would undo each other's drains.

use std::{
    fs::{self, DirBuilder, File, TryLockError},
    os::unix::fs::DirBuilderExt,
    path::Path,
};

use super::StateError;

/// Held while the agent runs; the kernel releases it however the process ends.
#[derive(Debug)]
pub struct StateLock {
    _file: File,
}

impl StateLock {
    /// Creates the directory if it is missing (mode 0700) and locks it.
    ///
    /// # Errors
    /// [`StateError::Locked`] when another agent has it, [`StateError::Io`] when
    /// the directory cannot be made or written.
    pub fn acquire(directory: &Path) -> Result<Self, StateError> {
        let failed = |action| {
            let path = directory.to_owned();
            move |source| StateError::Io { path, action, source }
        };
        DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(failed("create"))?;
        let path = directory.join("lock");
        let file = fs::OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .map_err(failed("write in"))?;
        match file.try_lock() {
            Ok(()) => Ok(Self { _file: file }),
            Err(TryLockError::WouldBlock) => Err(StateError::Locked { path }),
            Err(TryLockError::Error(source)) => Err(failed("lock")(source)),
        }
    }
}
