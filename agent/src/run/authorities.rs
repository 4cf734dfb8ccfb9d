//! The files of certificate authorities that a configuration names. Whoever rotates
//! certificates replaces them, and nothing else: new content is a new configuration.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use agent_database::TrustSource;

use crate::config::Config;

/// Their content as it was read, by file; of one that cannot be read, none.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Authorities(BTreeMap<PathBuf, Option<Vec<u8>>>);

// === impl Authorities ===

impl Authorities {
    /// Reads the files of a configuration. What is wrong with one is said by those who use it.
    pub(super) fn of(config: &Config) -> Self {
        let files = config.databases.iter().filter_map(|database| match &database.trust {
            TrustSource::BuiltIn => None,
            TrustSource::File(path) => Some((path.clone(), std::fs::read(path).ok())),
        });
        Self(files.collect())
    }

    /// The folders to watch for changes of them.
    pub(super) fn folders(&self) -> BTreeSet<&Path> {
        self.0.keys().filter_map(|path| path.parent()).collect()
    }
}
