//! What is written down, and when: drains before they are sent, roles now and then.

use std::time::Duration;

use agent_core::{ServerId, Time};

use super::Running;
use crate::{
    clock::unix_seconds,
    events::{Event, StateFailed},
    state::records::DrainRecord,
};

/// What is remembered of instances is written at most this often.
const REMEMBER: Duration = Duration::from_secs(10);

/// How long a state file may take to be written.
const DISK: Duration = Duration::from_secs(3);

impl Running {
    pub(super) async fn record(&mut self, server: &ServerId, reason: String) -> Result<(), String> {
        let socket = self.decider.routes.proxies.get(&server.proxy).map(|(_, socket)| socket.clone());
        let record = DrainRecord {
            socket: socket.unwrap_or_default(),
            backend: server.backend.to_string(),
            server: server.server.to_string(),
            reason,
            since: unix_seconds(),
        };
        self.decider.records.retain(|(known, _)| known != server);
        self.decider.records.push((server.clone(), record));
        self.store_records().await
    }

    pub(super) async fn forget(&mut self, server: &ServerId) {
        let before = self.decider.records.len();
        self.decider.records.retain(|(known, _)| known != server);
        if self.decider.records.len() == before {
            return;
        }
        if let Err(error) = self.store_records().await {
            let consequence = "a drain that is over stays on record and may be taken back once more";
            StateFailed { consequence, error }.emit(&self.decider.shared.metrics);
        }
    }

    pub(super) async fn store_records(&self) -> Result<(), String> {
        let file = self.decider.files.records.clone();
        let own = self.decider.records.iter().map(|(_, record)| record.clone());
        let records: Vec<DrainRecord> = own.chain(self.decider.strays.iter().cloned()).collect();
        blocking(move || file.store(&records)).await
    }

    pub(super) async fn remember(&mut self, now: Time) {
        if self.remembered_at.is_some_and(|at| now.since(at) < REMEMBER) {
            return;
        }
        self.remembered_at = Some(now);
        let remembered = self.decider.health.remember();
        if remembered == self.decider.remembered {
            return;
        }
        let file = self.decider.files.memory.clone();
        let copy = remembered.clone();
        match blocking(move || file.store(&copy)).await {
            Ok(()) => {
                self.decider.remembered = remembered;
                self.episodes.ends("memory");
            }
            Err(error) => {
                if self.episodes.begins("memory", &error) {
                    let consequence = "a restart will answer neutrally until its first probes";
                    StateFailed { consequence, error }.emit(&self.decider.shared.metrics);
                }
            }
        }
    }
}

/// Work on files, off the decider's thread. A disk that hangs must not hang the verdicts.
pub(super) async fn blocking<E: std::fmt::Display + Send + 'static>(
    work: impl FnOnce() -> Result<(), E> + Send + 'static,
) -> Result<(), String> {
    let task = tokio::task::spawn_blocking(move || work().map_err(|error| error.to_string()));
    match tokio::time::timeout(DISK, task).await {
        Ok(Ok(result)) => result,
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("the disk did not answer within {DISK:?}")),
    }
}
