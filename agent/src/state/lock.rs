//! The lock of the state directory: two agents would undo each other's drains.

use std::{
    fs::{self, DirBuilder, File, TryLockError},
    os::unix::fs::DirBuilderExt,
    path::Path,
};

use super::StateError;

/// Held while the agent runs. The kernel releases it however the process ends.
#[derive(Debug)]
pub struct StateLock {
    _file: File,
}

impl StateLock {
    /// Creates the directory if it is missing (mode 0700) and locks it.
    ///
    /// # Errors
    /// [`StateError::Locked`] if another agent holds it, [`StateError::Io`] if the directory cannot be
    /// created or written.
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
