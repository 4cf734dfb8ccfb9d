//! Reads and writes a small JSON file so that a crash at any point leaves either the old or the new content.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
};

use serde::{Serialize, de::DeserializeOwned};

#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The disk is full, for example, or the directory belongs to another user.
    #[error("{path}: cannot {action}: {source}")]
    Io {
        path: PathBuf,
        action: &'static str,
        #[source]
        source: io::Error,
    },
    /// The file was not written by this agent, or is damaged.
    #[error("{path}: not a state file of this agent, or damaged: {source}")]
    Format {
        path: PathBuf,
        #[source]
        source: serde_json::Error,
    },
    #[error("{path}: another agent holds this state directory; give each its own `state_dir`")]
    Locked { path: PathBuf },
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

/// Writes a value as JSON, whole.
pub(super) fn write<T: Serialize>(path: &Path, value: &T) -> Result<(), StateError> {
    let mut text = serde_json::to_vec_pretty(value)
        .map_err(|source| StateError::Format { path: path.to_owned(), source })?;
    text.push(b'\n');
    write_text(path, &text)
}

/// Writes a file whole: temporary file, sync, rename, sync of the directory.
pub(super) fn write_text(path: &Path, text: &[u8]) -> Result<(), StateError> {
    // Another process may write at the same time: `release` beside a running agent.
    let temporary = path.with_extension(format!("{}.new", std::process::id()));
    let mut file = File::create(&temporary).map_err(io_error(&temporary, "create"))?;
    file.write_all(text).map_err(io_error(&temporary, "write"))?;
    file.sync_all().map_err(io_error(&temporary, "sync"))?;
    fs::rename(&temporary, path).map_err(io_error(path, "replace"))?;
    sync_directory(path)
}

/// A lock against changes by other processes, held while a file is read and replaced. It is on the
/// directory, which exists on a full disk too.
pub(super) fn lock(path: &Path) -> Result<File, StateError> {
    let directory = directory(path);
    let locked = File::open(directory).and_then(|directory| directory.lock().map(|()| directory));
    locked.map_err(io_error(directory, "lock"))
}

/// Renames a damaged file, and returns its new path. An earlier damaged file is replaced.
pub(super) fn quarantine(path: &Path) -> Result<PathBuf, StateError> {
    let damaged = path.with_extension("json.damaged");
    fs::rename(path, &damaged).map_err(io_error(path, "rename"))?;
    sync_directory(path)?;
    Ok(damaged)
}

/// Removes a file if it exists. Works on a full disk.
pub(super) fn remove(path: &Path) -> Result<(), StateError> {
    match fs::remove_file(path) {
        Ok(()) => sync_directory(path),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(io_error(path, "remove")(error)),
    }
}

fn sync_directory(path: &Path) -> Result<(), StateError> {
    let directory = directory(path);
    File::open(directory).and_then(|directory| directory.sync_all()).map_err(io_error(directory, "sync"))
}

fn directory(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new("."))
}
