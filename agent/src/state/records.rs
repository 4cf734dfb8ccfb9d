//! The write-ahead record of the drains of the agent.
//!
//! A drain is recorded before it is sent to the proxy, and its record is removed only after the proxy no
//! longer shows it. Each record names the socket of the proxy, so that `release` needs neither a
//! running agent nor a valid configuration.

use std::{
    fmt,
    path::{Path, PathBuf},
};

use haproxy::Address;
use serde::{Deserialize, Serialize};

use super::{StateError, file};
use crate::config::ENVOY;

/// A drain in force, or about to be sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrainRecord {
    /// The proxy's runtime socket, as configured; for an Envoy, its name.
    pub socket: String,
    pub backend: String,
    pub server: String,
    pub reason: String,
    /// Seconds since 1970.
    pub since: u64,
    /// An operator asked for it: it does not end with the agent.
    #[serde(default)]
    pub operator: bool,
    /// It may leave fewer servers than the capacity floor.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub force: bool,
    /// It ends then, in seconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<u64>,
}

/// The proxy of a record.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum RecordedProxy<'a> {
    /// By its runtime socket.
    Haproxy(&'a str),
    Envoy,
}

impl RecordedProxy<'_> {
    /// Whether it is the HAProxy with this runtime socket.
    pub fn is_haproxy_at(self, socket: &Address) -> bool {
        matches!(self, Self::Haproxy(own) if own.parse::<Address>().is_ok_and(|own| own == *socket))
    }
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

impl fmt::Display for DrainRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{} at {}", self.backend, self.server, self.socket)
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

    pub fn load(&self) -> Result<Vec<DrainRecord>, StateError> {
        Ok(file::read(&self.path)?.unwrap_or_default())
    }

    /// Replaces all records. They are synced to disk when this returns.
    pub fn store(&self, records: &[DrainRecord]) -> Result<(), StateError> {
        let _lock = file::lock(&self.path)?;
        self.write(records)
    }

    /// Removes some records, and keeps those that another process has added meanwhile.
    pub fn remove(&self, over: &[DrainRecord]) -> Result<(), StateError> {
        let _lock = file::lock(&self.path)?;
        let mut left = self.load()?;
        left.retain(|record| !over.contains(record));
        self.write(&left)
    }

    /// Renames a damaged file, and returns its new path.
    pub fn quarantine(&self) -> Result<PathBuf, StateError> {
        file::quarantine(&self.path)
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
            operator: false,
            force: false,
            until: None,
        }
    }

    #[test]
    fn stored_records_are_loaded() {
        let directory = tempfile::tempdir().unwrap();
        let records = DrainRecords::in_directory(directory.path());
        assert_eq!(records.load().unwrap(), []);
        records.store(&[record("pg1"), record("pg2")]).unwrap();
        assert_eq!(records.load().unwrap(), [record("pg1"), record("pg2")]);
        records.store(&[]).unwrap();
        assert_eq!(records.load().unwrap(), []);
        assert!(!directory.path().join("drains.json").exists());
    }

    /// The format of the first release, which an older agent reads.
    #[derive(Deserialize)]
    #[allow(dead_code, reason = "only read")]
    struct First {
        socket: String,
        backend: String,
        server: String,
        reason: String,
        since: u64,
    }

    #[test]
    fn an_older_agent_reads_the_records_and_this_one_reads_those_of_a_newer() {
        let directory = tempfile::tempdir().unwrap();
        let records = DrainRecords::in_directory(directory.path());
        let operators = DrainRecord { operator: true, until: Some(1_900_000_000), ..record("pg1") };
        records.store(&[operators, record("pg2")]).unwrap();
        let path = directory.path().join("drains.json");
        let text = std::fs::read_to_string(&path).unwrap();
        let first: Vec<First> = serde_json::from_str(&text).unwrap();
        assert_eq!(first.len(), 2, "it takes both back");
        std::fs::write(&path, text.replace("\"since\"", "\"of a newer agent\": {}, \"since\"")).unwrap();
        assert_eq!(records.load().unwrap().len(), 2);
    }

    #[test]
    fn a_damaged_file_is_an_error_with_its_path() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("drains.json"), "[{\"socket\":").unwrap();
        let error = DrainRecords::in_directory(directory.path()).load().unwrap_err();
        assert!(error.to_string().contains("drains.json"), "{error}");
    }

    /// As with `release` beside a running agent.
    #[test]
    fn a_record_added_by_one_process_while_another_removes_one_is_kept() {
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
    fn a_damaged_file_is_renamed_and_kept() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("drains.json"), "[{\"socket\":").unwrap();
        let records = DrainRecords::in_directory(directory.path());
        let damaged = records.quarantine().unwrap();
        assert_eq!(records.load().unwrap(), []);
        assert_eq!(std::fs::read_to_string(damaged).unwrap(), "[{\"socket\":");
    }

    #[test]
    fn storing_in_an_unwritable_directory_is_an_error() {
        let records = DrainRecords::in_directory(Path::new("/proc/nowhere"));
        assert!(records.store(&[record("pg1")]).is_err());
    }
}
