//! What the state directory holds at a start, and what has to be ended in HAProxy outside of the
//! decider: at the end of the process, and of servers that are no longer configured.

use std::{
    collections::{BTreeMap, HashSet},
    path::Path,
    time::Duration,
};

use agent_core::ServerId;
use haproxy::runtime::{Connection, Limits};

use crate::{
    clock::unix_seconds,
    config::{Config, ProxyKind},
    decider::{Disk, Files},
    events::{Event, StateFailed, StaysDown},
    messages::Input,
    metrics::Metrics,
    proxies::haproxy::{
        lift::{Lifted, lift},
        release::{self, Released},
        take_back,
    },
    shared::Shared,
    state::{
        StateError,
        downs::{DownRecord, DownRecords},
        memory::MemoryFile,
        pause::{Pause, PauseFile},
        records::{DrainRecord, DrainRecords},
        server_state,
    },
};

pub(super) fn files(state_dir: &Path) -> Files {
    Files {
        records: DrainRecords::in_directory(state_dir),
        downs: DownRecords::in_directory(state_dir),
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
            Ok(Some(Pause { since: unix_seconds(), reason: "the pause file is damaged".into(), by: None }))
        }
        pause => pause,
    }
}

/// Splits records into those of configured servers and those of servers that are not configured (any more).
pub(super) fn split_records(
    records: Vec<DrainRecord>,
    config: &Config,
) -> (Vec<(ServerId, DrainRecord)>, Vec<DrainRecord>) {
    let known = configured(config);
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

/// The servers by the name of their proxy, backend and server.
fn configured(config: &Config) -> BTreeMap<(String, String, String), ServerId> {
    let mut known = BTreeMap::new();
    for proxy in &config.proxies {
        for server in &proxy.servers {
            let key = (proxy.name(), server.id.backend.to_string(), server.id.server.to_string());
            known.insert(key, server.id.clone());
        }
    }
    known
}

/// The same for servers that are DOWN by the agent's answers.
pub(super) fn split_downs(downs: Vec<DownRecord>, config: &Config) -> (Vec<ServerId>, Vec<DownRecord>) {
    let known = configured(config);
    let mut own = Vec::new();
    let mut strays = Vec::new();
    for record in downs {
        let key = (record.socket.clone(), record.backend.clone(), record.server.clone());
        match known.get(&key) {
            Some(server) => own.push(server.clone()),
            None => strays.push(record),
        }
    }
    (own, strays)
}

/// Lifts a server that is no longer configured. Tries until it succeeds, and then looks once more: an
/// agent check that was answered before may take effect late.
pub(super) async fn lift_stray(record: DownRecord, shared: Shared) {
    let mut reported = false;
    loop {
        match lift(&record).await {
            Ok(Lifted::Nothing) => return shared.send(Input::Lifted(record)).await,
            Ok(Lifted::Up) => {
                let DownRecord { backend, server, .. } = &record;
                tracing::info!(backend, server, "server of no configuration any more: up again");
            }
            Ok(Lifted::Stays) => return StaysDown { record: &record }.emit(&shared.metrics),
            Err(error) if !reported => {
                reported = true;
                let DownRecord { backend, server, .. } = &record;
                tracing::warn!(backend, server, error, "unconfigured server not lifted; retrying every 10 s");
            }
            Err(_) => {}
        }
        tokio::time::sleep(Duration::from_secs(10)).await;
    }
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

/// How the process ends.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// No agent follows that is known of.
    Stop,
    /// Another agent follows at once. It takes over the servers that are DOWN.
    HandOver,
}

/// Ends what the agent has set in HAProxy, and logs each result.
pub(super) async fn release_all(state_dir: &Path, end: End) {
    let metrics = Metrics::default();
    let mut released = Released::default();
    let report = |error: StateError| {
        let consequence = "the agent may have left something in HAProxy: run `rds-lb-agent release`";
        StateFailed { consequence, error: error.to_string() }.emit(&metrics);
    };
    if let Err(error) = release::drains(state_dir, false, &mut released).await {
        report(error);
    }
    if end == End::Stop
        && let Err(error) = release::downs(state_dir, &mut released).await
    {
        report(error);
    }
    for server in &released.taken_back {
        tracing::info!(server, "drain taken back");
    }
    for server in &released.lifted {
        tracing::info!(server, "up again in HAProxy: the agent no longer keeps it down");
    }
    for (server, command) in &released.stays_down {
        tracing::info!(server, command, "stays DOWN in HAProxy for its role; the command lifts it");
    }
    for (server, error) in &released.failed {
        tracing::error!(server, error, "not released; the record is kept for the next start");
    }
}

/// Writes HAProxy's server state files once more, after everything was released. Returns why a file could not be
/// written.
pub async fn write_state_files(config: &Config) -> Vec<String> {
    let mut errors = Vec::new();
    let records = DrainRecords::in_directory(&config.state_dir).load().unwrap_or_default();
    for proxy in &config.proxies {
        let ProxyKind::Haproxy(haproxy) = &proxy.kind else { continue };
        let Some(path) = &haproxy.state_file else { continue };
        // Those that an operator asked for stay drained without an agent too.
        let own: HashSet<(String, String)> = records
            .iter()
            .filter(|record| !record.operator && record.proxy().is_haproxy_at(&haproxy.socket))
            .map(|record| (record.backend.clone(), record.server.clone()))
            .collect();
        let text = async {
            let mut connection = Connection::open(&haproxy.socket, Limits::default()).await?;
            connection
                .state_file(|backend, server| own.contains(&(backend.to_owned(), server.to_owned())))
                .await
        };
        let written = match text.await {
            Ok(text) => server_state::replace(path, &text).map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        };
        errors.extend(written.err().map(|error| format!("{}: {error}", path.display())));
    }
    errors
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
