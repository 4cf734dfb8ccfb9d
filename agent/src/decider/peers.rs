//! Other agents of the same instances: what this one shows them, and what follows from what they show.

use std::{collections::BTreeMap, time::Duration};

use agent_core::{
    DatabaseName, Fault, FaultKind, InstanceId, Time,
    health::Fleet,
    peers::{Look, Marks},
    plan::Plan,
};

use super::Running;
use crate::{
    events::{AgentsAgree, AgentsDisagree, Event, PeersSeen, PeersUnseen, WriterChosen},
    metrics::labels::OfDatabase,
    snapshot::{Disagreement, Meeting},
};

/// Agents see a new writer one after the other, within seconds. After this they disagree.
const DISAGREE: Duration = Duration::from_secs(10);

/// An operator's word is shown to other agents while the conflict lasts, and at least this long after the command:
/// the conflict may be noticed later than it is decided. Longer, and it could decide a later conflict.
const WORD: Duration = Duration::from_secs(30);

impl Running {
    /// What the agent wants to hold and to know on each instance.
    pub(super) fn meetings(&self, plan: &Plan) -> BTreeMap<InstanceId, Meeting> {
        let mut meetings: BTreeMap<InstanceId, Meeting> = BTreeMap::new();
        for id in self.fleet.instances.keys() {
            let marks = Marks { drain: plan.marks.contains(id), ..Marks::default() };
            let (permits, now) = (plan.permits.get(id).copied().unwrap_or(0), plan.meet.contains(id));
            meetings.insert(id.clone(), Meeting { marks, permits, now });
        }
        for (database, instance) in self.decider.health.writers() {
            let id = InstanceId { database: database.clone(), instance: instance.clone() };
            if let Some(meeting) = meetings.get_mut(&id) {
                meeting.marks.writer = true;
            }
        }
        for (id, _) in self.words.values() {
            if let Some(meeting) = meetings.get_mut(id) {
                meeting.marks.word = true;
            }
        }
        meetings
    }

    /// Takes the writer that an operator has named to another agent, where this one waits for an operator too.
    /// Whether anything has changed.
    pub(super) fn follow_words(&mut self, fleet: &Fleet) -> bool {
        let in_conflict = |database: &DatabaseName| {
            fleet.instances.iter().any(|(id, view)| id.database == *database && view.conflict)
        };
        let now = fleet.at;
        self.words.retain(|database, (_, since)| now.since(*since) <= WORD || in_conflict(database));
        let mut changed = false;
        let databases: Vec<DatabaseName> = fleet
            .instances
            .iter()
            .filter(|(_, view)| view.conflict)
            .map(|(id, _)| id.database.clone())
            .collect();
        for database in databases {
            // What an operator told this agent is not changed by another one.
            if self.words.contains_key(&database) {
                continue;
            }
            let Some(named) = self.decider.planner.peers().word(&database).cloned() else { continue };
            let claims = fleet.instances.get(&named).is_some_and(|view| view.conflict);
            let mut writers = self.decider.health.writers();
            let known = writers.any(|(name, writer)| *name == database && *writer == named.instance);
            drop(writers);
            if claims && !known && self.decider.health.choose_writer(&named) {
                WriterChosen { instance: &named, by_peer: true }.emit(&self.decider.shared.metrics);
                changed = true;
            }
        }
        changed
    }

    /// Other agents on the instances of a database.
    pub(super) fn peers_of(&self, database: &DatabaseName) -> u32 {
        let seen = self.decider.planner.peers().seen().iter();
        seen.filter(|(id, _)| id.database == *database).map(|(_, seen)| seen.look.peers).max().unwrap_or(0)
    }

    /// Reports when the locks of an instance cannot be read, or do not show all agents.
    pub(super) fn tell_look(&mut self, instance: &InstanceId, look: &Result<Look, Fault>) {
        let metrics = &self.decider.shared.metrics;
        let subject = format!("peers {instance}");
        let cause = match look {
            Ok(Look { foreign, .. }) if *foreign > 0 => {
                "another database user holds locks with the agents' names: give all agents the same user"
            }
            Ok(Look { apart, .. }) if *apart > 0 => {
                "other agents are connected to another database of the server: give all of them the same `database`"
            }
            Ok(_) => {
                if self.episodes.ends(&subject) {
                    PeersSeen { instance }.emit(metrics);
                }
                return;
            }
            Err(fault) => {
                // The end of a session is reported where it is noticed.
                let refused = matches!(fault.kind, FaultKind::PermissionDenied | FaultKind::DatabaseError);
                if refused && self.episodes.begins(&subject, &fault.to_string()) {
                    PeersUnseen { instance, cause: &fault.to_string() }.emit(metrics);
                }
                return;
            }
        };
        if self.episodes.begins(&subject, cause) {
            PeersUnseen { instance, cause }.emit(metrics);
        }
    }

    /// Compares the writer that this agent knows with those of other agents.
    pub(super) fn tell_disagreements(&mut self, now: Time) {
        let metrics = self.decider.shared.metrics.clone();
        let mut disagreements = Vec::new();
        for (database, writer) in self.decider.health.writers() {
            let mut others = self.decider.planner.peers().writers(database);
            others.remove(writer);
            let lasts = if others.is_empty() {
                self.disagree_since.remove(database);
                false
            } else {
                now.since(*self.disagree_since.entry(database.clone()).or_insert(now)) >= DISAGREE
            };
            let labels = OfDatabase { database: database.to_string() };
            metrics.agents_disagree.get_or_create(&labels).set(lasts.into());
            let subject = format!("disagree {database}");
            if !lasts {
                if self.episodes.ends(&subject) {
                    AgentsAgree { database: database.as_str(), writer: writer.as_str() }.emit(&metrics);
                }
                continue;
            }
            if self.episodes.begins(&subject, "") {
                let others: Vec<String> =
                    others.iter().map(|(name, agents)| format!("{name} ({agents})")).collect();
                let (database, own) = (database.as_str(), writer.as_str());
                AgentsDisagree { database, own, others: &others.join(", ") }.emit(&metrics);
            }
            disagreements.push(Disagreement {
                database: database.to_string(),
                own: writer.to_string(),
                others: others.into_iter().map(|(name, agents)| (name.to_string(), agents)).collect(),
            });
        }
        self.disagreements = disagreements;
    }

    pub(super) fn count_peers(&self) {
        let metrics = &self.decider.shared.metrics;
        let peers = self.decider.planner.peers();
        for id in self.fleet.instances.keys() {
            if let Some(look) = peers.look(id) {
                metrics.agents.get_or_create(&id.into()).set(i64::from(look.peers) + 1);
                metrics.shared_permits.get_or_create(&id.into()).set(look.permits.into());
            } else {
                metrics.agents.remove(&id.into());
                metrics.shared_permits.remove(&id.into());
            }
        }
    }
}
