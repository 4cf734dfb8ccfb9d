//! What the state directory holds at a start, and drains that have to be taken back outside of the
//! decider: at the end of the process, and of servers that are no longer configured.

use std::{collections::BTreeMap, path::Path, time::Duration};

use agent_core::ServerId;

use crate::{
    clock::unix_seconds,
    config::Config,
    decider::{Disk, Files},
    events::{Event, StateFailed},
    messages::Input,
    metrics::Metrics,
    proxies::haproxy::take_back,
    shared::Shared,
    state::{
        StateError,
        memory::MemoryFile,
        pause::{Pause, PauseFile},
        records::{DrainRecord, DrainRecords},
    },
};

pub(super) fn files(state_dir: &Path) -> Files {
    Files {
        records: DrainRecords::in_directory(state_dir),
        memory: MemoryFile::in_directory(state_dir),
        pause: PauseFile::in_directory(state_dir),
        disk: Disk::default(),
    }
}

/// Loads the recorded drains. A damaged file is moved away and does not prevent the start: an agent
/// that does not run looks after no drain at all.
pub(super) fn load_drains(
    file: &DrainRecords,
    report: impl Fn(&'static str, &StateError),
) -> Result<Vec<DrainRecord>, StateError> {
    match file.load() {
        Err(error @ StateError::Format { .. }) => {
            report("drains recorded in it may be left in the proxy; the file is kept as `.damaged`", &error);
            file.quarantine()?;
            Ok(Vec::new())
        }
        records => records,
    }
}

/// Loads the operator's pause. A damaged file counts as a pause: it exists only after an operator
/// paused the agent.
pub(super) fn load_pause(
    file: &PauseFile,
    report: impl Fn(&'static str, &StateError),
) -> Result<Option<Pause>, StateError> {
    match file.load() {
        Err(error @ StateError::Format { .. }) => {
            report("acting is paused until `rds-lb-agent resume`", &error);
            Ok(Some(Pause { since: unix_seconds(), reason: "the pause file is damaged".into() }))
        }
        pause => pause,
    }
}

/// Splits records into those of configured servers and those of servers that are not configured (any more).
pub(super) fn split_records(
    records: Vec<DrainRecord>,
    config: &Config,
) -> (Vec<(ServerId, DrainRecord)>, Vec<DrainRecord>) {
    let mut known: BTreeMap<(String, String, String), ServerId> = BTreeMap::new();
    for proxy in &config.proxies {
        for server in &proxy.servers {
            let key = (proxy.name(), server.id.backend.to_string(), server.id.server.to_string());
            known.insert(key, server.id.clone());
        }
    }
    let mut own = Vec::new();
    let mut strays = Vec::new();
    for record in records {
        let key = (record.socket.clone(), record.backend.clone(), record.server.clone());
        match known.get(&key) {
            Some(server) => own.push((server.clone(), record)),
            None => strays.push(record),
        }
    }
    (own, strays)
}

/// Takes back the drain of a server that is no longer configured. Tries until it succeeds.
pub(super) async fn take_back_stray(record: DrainRecord, shared: Shared) {
    let mut reported = false;
    loop {
        match take_back::recorded(&record).await {
            Ok(_) => return shared.send(Input::StrayGone(record)).await,
            Err(error) if !reported => {
                reported = true;
                let DrainRecord { backend, server, .. } = &record;
                tracing::warn!(
                    backend,
                    server,
                    error,
                    "drain of an unconfigured server not taken back; retrying every 10 s"
                );
            }
            Err(_) => {}
        }
        tokio::time::sleep(Duration::from_secs(10)).await;
    }
}

/// Takes back all recorded drains, and logs the result of each.
pub(super) async fn take_back_all(state_dir: &Path) {
    let metrics = Metrics::default();
    match take_back::own(&DrainRecords::in_directory(state_dir)).await {
        Ok(undone) => {
            for server in &undone.taken_back {
                tracing::info!(server, "drain taken back");
            }
            for (server, error) in &undone.failed {
                tracing::error!(server, error, "drain not taken back; its record is kept for the next start");
            }
        }
        Err(error) => {
            let consequence =
                "drains of the agent may be left in the proxy: run `rds-lb-agent undrain --own`";
            StateFailed { consequence, error: error.to_string() }.emit(&metrics);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn damaged_state_files_are_reported_and_do_not_prevent_the_start() {
        let folder = tempfile::tempdir().unwrap();
        let files = files(folder.path());
        for name in ["drains.json", "paused.json"] {
            std::fs::write(folder.path().join(name), "{\"since\":").unwrap();
        }
        let reported = std::cell::RefCell::new(Vec::new());
        let report = |_: &'static str, error: &StateError| reported.borrow_mut().push(error.to_string());
        assert_eq!(load_drains(&files.records, report).unwrap(), []);
        assert!(folder.path().join("drains.json.damaged").exists());
        assert_eq!(load_drains(&files.records, report).unwrap(), [], "the next start finds no file");
        assert!(load_pause(&files.pause, report).unwrap().is_some());
        assert!(load_pause(&files.pause, report).unwrap().is_some(), "also at the next start");
        files.pause.store(None).unwrap();
        assert_eq!(load_pause(&files.pause, report).unwrap(), None, "after a resume");
        assert_eq!(reported.borrow().len(), 3, "{reported:?}");
    }
}
