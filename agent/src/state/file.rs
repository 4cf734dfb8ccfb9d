//! Reading and writing one small JSON file so that a crash at any point leaves
//! either the old text or the new.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
};

use serde::{Serialize, de::DeserializeOwned};

/// A state file could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The operating system said no: the disk is full, or the directory is not the agent's.
    #[error("{path}: cannot {action}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// Its own words.
        #[source]
        source: io::Error,
    },
    /// The file is not of this agent's making, or was damaged.
    #[error("{path}: not a state file of this agent, or damaged: {source}")]
    Format {
        /// The file.
        path: PathBuf,
        /// Where it stops being one.
        #[source]
        source: serde_json::Error,
    },
    /// Another agent runs with the same state directory.
    #[error("{path}: another agent holds this state directory; give each its own `state_dir`")]
    Locked {
        /// The lock file.
        path: PathBuf,
    },
}

fn io_error(path: &Path, action: &'static str) -> impl FnOnce(io::Error) -> StateError {
    let path = path.to_owned();
    move |source| StateError::Io { path, action, source }
}

/// Reads a file; `None` when there is none.
pub(super) fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, StateError> {
    let text = match fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(io_error(path, "read")(error)),
    };
    serde_json::from_slice(&text)
        .map(Some)
        .map_err(|source| StateError::Format { path: path.to_owned(), source })
}

/// Writes a file whole: temporary file, sync, rename, sync of the directory.
pub(super) fn write<T: Serialize>(path: &Path, value: &T) -> Result<(), StateError> {
    let mut text = serde_json::to_vec_pretty(value)
        .map_err(|source| StateError::Format { path: path.to_owned(), source })?;
    text.push(b'\n');
    // Another process may be writing as well: `undrain --own` beside a running agent.
    let temporary = path.with_extension(format!("{}.new", std::process::id()));
    let mut file = File::create(&temporary).map_err(io_error(&temporary, "create"))?;
    file.write_all(&text).map_err(io_error(&temporary, "write"))?;
    file.sync_all().map_err(io_error(&temporary, "sync"))?;
    fs::rename(&temporary, path).map_err(io_error(path, "replace"))?;
    sync_directory(path)
}

/// Held while a file is read and written anew, so that no other process changes it meanwhile.
/// The lock is on the folder, which is there on a full disk too.
pub(super) fn alone(path: &Path) -> Result<File, StateError> {
    let folder = folder(path);
    let locked = File::open(folder).and_then(|folder| folder.lock().map(|()| folder));
    locked.map_err(io_error(folder, "lock"))
}

/// Moves a file out of the way, and says where to. Of several, the last is kept.
pub(super) fn set_aside(path: &Path) -> Result<PathBuf, StateError> {
    let aside = path.with_extension("json.damaged");
    fs::rename(path, &aside).map_err(io_error(path, "move away"))?;
    sync_directory(path)?;
    Ok(aside)
}

/// Removes a file; it is no error when there is none. Works on a full disk.
pub(super) fn remove(path: &Path) -> Result<(), StateError> {
    match fs::remove_file(path) {
        Ok(()) => sync_directory(path),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(io_error(path, "remove")(error)),
    }
}

fn sync_directory(path: &Path) -> Result<(), StateError> {
    let directory = folder(path);
    File::open(directory).and_then(|directory| directory.sync_all()).map_err(io_error(directory, "sync"))
}

fn folder(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new("."))
}
