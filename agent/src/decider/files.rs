//! What is written down, and when: drains before they are sent, roles now and then.

use std::time::Duration;

use agent_core::{ServerId, Time, health::Down};

use super::{Decider, Running};
use crate::{
    clock::unix_seconds,
    events::{Event, StateFailed},
    state::{downs::DownRecord, records::DrainRecord},
};

/// What is remembered of instances is written at most this often.
const REMEMBER: Duration = Duration::from_secs(10);

/// The record of servers that are down is written at most this often, unless another server is down.
const RECORD_DOWNS: Duration = Duration::from_secs(1);

/// Between two tries to write records that could not be written.
const AGAIN: Duration = Duration::from_secs(5);

impl Decider {
    /// The servers that are DOWN in a HAProxy by the agent's answers.
    pub fn down_records(&self) -> Vec<DownRecord> {
        let record = |down: Down| {
            let socket = self.routes.haproxy_name(&down.server)?.to_owned();
            let (backend, server) = (down.server.backend.to_string(), down.server.server.to_string());
            Some(DownRecord {
                socket,
                backend,
                server,
                reason: down.reason.to_string(),
                by_role: down.by_role,
            })
        };
        let downs = self.health.downs().into_iter().filter_map(record);
        downs.chain(self.stray_downs.iter().cloned()).collect()
    }

    /// Writes these records. Whether they had changed.
    pub async fn store_downs(&mut self) -> Result<bool, String> {
        let downs = self.down_records();
        if downs == self.downs {
            return Ok(false);
        }
        let (file, copy) = (self.files.downs.clone(), downs.clone());
        self.files.disk.write(move || file.store(&copy)).await?;
        self.downs = downs;
        Ok(true)
    }
}

impl Running {
    pub(super) async fn record(&mut self, server: &ServerId, reason: String) -> Result<(), String> {
        let socket = self.decider.routes.name(server).unwrap_or_default().to_owned();
        let now = self.decider.shared.clock.now();
        let requested = self.decider.planner.drains().requested(server);
        let until = requested.and_then(|requested| requested.until);
        let record = DrainRecord {
            socket,
            backend: server.backend.to_string(),
            server: server.server.to_string(),
            reason,
            since: unix_seconds(),
            operator: requested.is_some(),
            force: requested.is_some_and(|requested| requested.force),
            until: until.map(|until| unix_seconds() + until.since(now).as_secs()),
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
            self.told_stays(error);
        }
    }

    /// A drain that was sent is on record, whatever came between its command and this.
    pub(super) async fn sure_of_record(&mut self, server: &ServerId) {
        if self.decider.records.iter().any(|(known, _)| known == server) {
            return;
        }
        if let Err(error) = self.record(server, "sent late".into()).await {
            let consequence = "a drain that is being taken back is not on record";
            StateFailed { consequence, error }.emit(&self.decider.shared.metrics);
        }
    }

    /// The drain of a server that is no longer configured is over: one that is seen
    /// there later is an operator's.
    pub(super) async fn forget_stray(&mut self, record: &DrainRecord) {
        self.decider.strays.retain(|known| known != record);
        if let Err(error) = self.store_records().await {
            self.told_stays(error);
        }
    }

    fn told_stays(&self, error: String) {
        let consequence = "a drain that is over stays on record and may be taken back once more";
        StateFailed { consequence, error }.emit(&self.decider.shared.metrics);
    }

    /// Writes what could not be written before: the records of drains that are
    /// over would be applied to an operator's after a restart.
    pub(super) async fn store_again(&mut self, now: Option<Time>) {
        let waits = |since: Time| now.is_some_and(|now| now.since(since) < AGAIN);
        if self.unstored.is_some_and(|since| !waits(since)) {
            // The first failure was reported.
            let _ = self.store_records().await;
        }
    }

    pub(super) async fn store_records(&mut self) -> Result<(), String> {
        let file = self.decider.files.records.clone();
        let own = self.decider.records.iter().map(|(_, record)| record.clone());
        let records: Vec<DrainRecord> = own.chain(self.decider.strays.iter().cloned()).collect();
        let stored = self.decider.files.disk.write(move || file.store(&records)).await;
        self.unstored = stored.is_err().then(|| self.decider.shared.clock.now());
        stored
    }

    /// Writes which servers are DOWN by the agent's answers, after a change. One that is missing on record stays
    /// DOWN if the agent is killed and released, so it is written at once; what a disk refuses is tried again later.
    pub(super) async fn record_downs(&mut self, now: Time) {
        let lately = self.downs_at.is_some_and(|at| now.since(at) < RECORD_DOWNS);
        let recorded = |down: &DownRecord| self.decider.downs.contains(down);
        if lately && (self.downs_refused || self.decider.down_records().iter().all(recorded)) {
            return;
        }
        match self.decider.store_downs().await {
            Ok(false) => {}
            Ok(true) => {
                (self.downs_at, self.downs_refused) = (Some(now), false);
                self.episodes.ends("downs");
            }
            Err(error) => {
                (self.downs_at, self.downs_refused) = (Some(now), true);
                if self.episodes.begins("downs", &error) {
                    let consequence = "a server that leaves the configuration while it is DOWN may stay so";
                    StateFailed { consequence, error }.emit(&self.decider.shared.metrics);
                }
            }
        }
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
        match self.decider.files.disk.write(move || file.store(&copy)).await {
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
