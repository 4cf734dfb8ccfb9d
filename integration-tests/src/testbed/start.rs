//! What a proxy needs to start: its program, a folder, and ports that no other process takes.

use std::{
    fs, io,
    os::unix::fs::{PermissionsExt, chown},
    path::{Path, PathBuf},
};

use tempfile::TempDir;

use crate::process::{Account, Error};

/// How often a proxy is started: a free port may be taken again before the proxy binds it.
pub(super) const STARTS: u32 = 3;

pub(super) fn port_was_taken(error: &Error) -> bool {
    matches!(error, Error::Ended { log, .. } if log.contains("cannot bind"))
}

/// A folder that the proxy's account owns and others can read.
pub(super) fn own_folder(proxy: &str, account: Option<&Account>) -> io::Result<TempDir> {
    let mode = fs::Permissions::from_mode(0o755);
    let folder = tempfile::Builder::new().prefix(&format!("rdslb-{proxy}-")).permissions(mode).tempdir()?;
    if let Some(Account { uid, gid }) = account {
        chown(folder.path(), Some(*uid), Some(*gid))?;
    }
    Ok(folder)
}

/// A file of a Python package in the virtual environment under `target/`, which `make deps` makes.
pub(super) fn from_pypi(file: &str) -> Option<PathBuf> {
    let environment = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/venv/lib");
    let pythons = fs::read_dir(&environment).into_iter().flatten().flatten();
    pythons.map(|python| python.path().join("site-packages").join(file)).find(|file| file.is_file())
}
