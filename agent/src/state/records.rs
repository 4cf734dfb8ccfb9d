//! The write-ahead record of the agent's own drains.
//!
//! A drain is in this file before the proxy hears of it, and leaves the file
//! only after the proxy's own table shows it gone. Each record carries the
//! proxy's socket, so that `undrain --own` needs neither a running agent nor a
//! valid configuration.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{StateError, file};
use crate::config::ENVOY;

/// One drain that the agent holds, or is about to send.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrainRecord {
    /// The proxy's runtime socket, as configured; for an Envoy, its name.
    pub socket: String,
    /// The backend.
    pub backend: String,
    /// The server.
    pub server: String,
    /// Why it was drained.
    pub reason: String,
    /// When, in seconds since 1970.
    pub since: u64,
}

/// The proxy of a record.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum RecordedProxy<'a> {
    /// By its runtime socket.
    Haproxy(&'a str),
    Envoy,
}

impl DrainRecord {
    pub fn proxy(&self) -> RecordedProxy<'_> {
        if self.socket.starts_with(ENVOY) {
            RecordedProxy::Envoy
        } else {
            RecordedProxy::Haproxy(&self.socket)
        }
    }
}

/// The file of records.
#[derive(Clone, Debug)]
pub struct DrainRecords {
    path: PathBuf,
}

impl DrainRecords {
    /// The records in a state directory.
    pub fn in_directory(directory: &Path) -> Self {
        Self { path: directory.join("drains.json") }
    }

    /// All records; none when the file is missing.
    pub fn load(&self) -> Result<Vec<DrainRecord>, StateError> {
        Ok(file::read(&self.path)?.unwrap_or_default())
    }

    /// Replaces all records. When this returns, they are on the disk.
    pub fn store(&self, records: &[DrainRecord]) -> Result<(), StateError> {
        let _alone = file::alone(&self.path)?;
        self.write(records)
    }

    /// Removes some, and leaves what another process has recorded meanwhile.
    pub fn remove(&self, over: &[DrainRecord]) -> Result<(), StateError> {
        let _alone = file::alone(&self.path)?;
        let mut left = self.load()?;
        left.retain(|record| !over.contains(record));
        self.write(&left)
    }

    /// Moves a file that cannot be read out of the way, and says where to.
    pub fn set_aside(&self) -> Result<PathBuf, StateError> {
        file::set_aside(&self.path)
    }

    fn write(&self, records: &[DrainRecord]) -> Result<(), StateError> {
        if records.is_empty() { file::remove(&self.path) } else { file::write(&self.path, &records) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(server: &str) -> DrainRecord {
        DrainRecord {
            socket: "/run/haproxy/admin.sock".into(),
            backend: "orders".into(),
            server: server.into(),
            reason: "sessions due".into(),
            since: 1_800_000_000,
        }
    }

    #[test]
    fn what_was_stored_is_loaded() {
        let directory = tempfile::tempdir().unwrap();
        let records = DrainRecords::in_directory(directory.path());
        assert_eq!(records.load().unwrap(), []);
        records.store(&[record("pg1"), record("pg2")]).unwrap();
        assert_eq!(records.load().unwrap(), [record("pg1"), record("pg2")]);
        records.store(&[]).unwrap();
        assert_eq!(records.load().unwrap(), []);
        assert!(!directory.path().join("drains.json").exists());
    }

    #[test]
    fn a_damaged_file_is_an_error_that_names_it() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("drains.json"), "[{\"socket\":").unwrap();
        let error = DrainRecords::in_directory(directory.path()).load().unwrap_err();
        assert!(error.to_string().contains("drains.json"), "{error}");
    }

    /// `undrain --own` beside a running agent: each has the file for itself.
    #[test]
    fn what_one_process_records_while_another_removes_stays() {
        let directory = tempfile::tempdir().unwrap();
        let records = DrainRecords::in_directory(directory.path());
        for round in 0..50 {
            let (old, new) = (record(&format!("old{round}")), record(&format!("new{round}")));
            records.store(std::slice::from_ref(&old)).unwrap();
            std::thread::scope(|scope| {
                let others = records.clone();
                let over = [old.clone()];
                scope.spawn(move || others.remove(&over).unwrap());
                records.store(&[old.clone(), new.clone()]).unwrap();
            });
            assert!(records.load().unwrap().contains(&new), "round {round}");
        }
    }

    #[test]
    fn a_damaged_file_is_set_aside_and_kept() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("drains.json"), "[{\"socket\":").unwrap();
        let records = DrainRecords::in_directory(directory.path());
        let aside = records.set_aside().unwrap();
        assert_eq!(records.load().unwrap(), []);
        assert_eq!(std::fs::read_to_string(aside).unwrap(), "[{\"socket\":");
    }

    #[test]
    fn a_directory_that_cannot_be_written_is_an_error_and_not_a_drain() {
        let records = DrainRecords::in_directory(Path::new("/proc/nowhere"));
        assert!(records.store(&[record("pg1")]).is_err());
    }
}
