//! The read position in the access log of an Envoy.

use std::path::{Path, PathBuf};

use agent_core::ProxyIndex;
use envoy::access_log::Position;
use serde::{Deserialize, Serialize};

use super::{StateError, file};

#[derive(Clone, Debug)]
pub struct PositionFile {
    path: PathBuf,
    log: PathBuf,
}

#[derive(Serialize, Deserialize)]
struct Read {
    log: PathBuf,
    position: Position,
}

impl PositionFile {
    /// The position in `log`, the access log of the proxy with this index.
    pub fn in_directory(directory: &Path, proxy: ProxyIndex, log: &Path) -> Self {
        Self { path: directory.join(format!("access_log.{proxy}.json")), log: log.to_owned() }
    }

    /// `None` if there is no position for this access log.
    pub fn load(&self) -> Result<Option<Position>, StateError> {
        let read: Option<Read> = file::read(&self.path)?;
        Ok(read.filter(|read| read.log == self.log).map(|read| read.position))
    }

    pub fn store(&self, position: Position) -> Result<(), StateError> {
        file::write(&self.path, &Read { log: self.log.clone(), position })
    }
}
