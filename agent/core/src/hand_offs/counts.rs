//! Failures by minute, for an hour: by phase, database, server and client network.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use serde::Serialize;

use super::{Certainty, Failure, Phase};
use crate::{Time, plan::Network};

const MINUTE: Duration = Duration::from_secs(60);

/// Minutes that are kept.
const MINUTES: usize = 60;

/// Different groups in one minute. The rest is counted without its network, and then without its server.
const GROUPS: usize = 256;

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Group {
    phase: Phase,
    certainty: Certainty,
    database: Arc<str>,
    server: Arc<str>,
    network: Option<Network>,
}

#[derive(Debug, Default)]
pub struct Counts {
    /// Oldest first.
    minutes: VecDeque<(Time, BTreeMap<Group, u64>)>,
}

/// A value with the number of its failures.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Top {
    pub name: String,
    pub count: u64,
}

/// The failures of the last minutes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// Certain and likely ones.
    pub failed: u64,
    /// Sessions that may have gone well.
    pub suspected: u64,
    pub phases: Vec<Top>,
    pub databases: Vec<Top>,
    pub servers: Vec<Top>,
    /// Client networks. The most frequent ones, without those that were not counted apart.
    pub networks: Vec<Top>,
    /// The same for suspected failures.
    pub suspected_networks: Vec<Top>,
}

impl Counts {
    pub fn add(&mut self, now: Time, failure: &Failure) {
        if self.minutes.back().is_none_or(|(since, _)| now.since(*since) >= MINUTE) {
            self.minutes.push_back((now, BTreeMap::new()));
            if self.minutes.len() > MINUTES {
                self.minutes.pop_front();
            }
        }
        let Some((_, groups)) = self.minutes.back_mut() else { return };
        let mut group = Group {
            phase: failure.phase,
            certainty: failure.certainty,
            database: failure
                .database
                .as_ref()
                .map_or_else(|| "-".into(), |database| database.as_str().into()),
            server: format!("{}/{}", failure.backend_label(), failure.server_label()).into(),
            network: failure.source.map(|source| Network::around(source.ip())),
        };
        if groups.len() >= GROUPS && !groups.contains_key(&group) {
            group.network = None;
        }
        if groups.len() >= GROUPS * 2 && !groups.contains_key(&group) {
            (group.database, group.server) = ("-".into(), "other".into());
        }
        *groups.entry(group).or_default() += 1;
    }

    /// The failures since `now - since`, by whole minutes. Suspected ones are counted apart.
    pub fn summary(&self, now: Time, since: Duration, most: usize) -> Summary {
        let mut summary = Summary::default();
        let (mut phases, mut databases) = (BTreeMap::new(), BTreeMap::new());
        let (mut servers, mut networks, mut suspected) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        let minutes = self.minutes.iter().filter(|(began, _)| now.since(*began) < since + MINUTE);
        for (group, count) in minutes.flat_map(|(_, groups)| groups) {
            if group.certainty == Certainty::Suspected {
                summary.suspected += count;
                if let Some(network) = group.network {
                    *suspected.entry(network.to_string()).or_insert(0) += count;
                }
                continue;
            }
            summary.failed += count;
            *phases.entry(group.phase.word().to_owned()).or_insert(0) += count;
            *databases.entry(group.database.to_string()).or_insert(0) += count;
            *servers.entry(group.server.to_string()).or_insert(0) += count;
            if let Some(network) = group.network {
                *networks.entry(network.to_string()).or_insert(0) += count;
            }
        }
        summary.phases = top(phases, usize::MAX);
        summary.databases = top(databases, most);
        summary.servers = top(servers, most);
        summary.networks = top(networks, most);
        summary.suspected_networks = top(suspected, most);
        summary
    }
}

/// The largest counts first.
fn top(counts: BTreeMap<String, u64>, most: usize) -> Vec<Top> {
    let mut all: Vec<Top> = counts.into_iter().map(|(name, count)| Top { name, count }).collect();
    all.sort_by(|one, other| other.count.cmp(&one.count).then_with(|| one.name.cmp(&other.name)));
    all.truncate(most);
    all
}
