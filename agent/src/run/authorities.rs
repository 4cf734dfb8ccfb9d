//! The CA files of a configuration. A rotation of certificates changes only these files, so new content
//! counts as a changed configuration.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use agent_database::TrustSource;

use crate::config::Config;

/// The content of each file; `None` if it cannot be read.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Authorities(BTreeMap<PathBuf, Option<Vec<u8>>>);

// === impl Authorities ===

impl Authorities {
    /// Reads the files. Errors are reported where the files are used.
    pub(super) fn of(config: &Config) -> Self {
        let files = config.databases.iter().filter_map(|database| match &database.trust {
            TrustSource::BuiltIn => None,
            TrustSource::File(path) => Some((path.clone(), std::fs::read(path).ok())),
        });
        Self(files.collect())
    }

    /// The directories to watch.
    pub(super) fn folders(&self) -> BTreeSet<&Path> {
        self.0.keys().filter_map(|path| path.parent()).collect()
    }
}
