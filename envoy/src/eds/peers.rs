//! Who is connected, what they took and what they did not, for people to read.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use serde::Serialize;
use tokio::time::Instant;

use super::Known;
use crate::proto::Node;

/// What a peer says of itself is cut to this many characters.
const LONGEST_NAME: usize = 200;

/// What a peer says of a rejected response is cut to this many.
const LONGEST_MESSAGE: usize = 1_000;

/// Clusters of one stream that are listed.
const MOST_CLUSTERS: usize = 64;

/// The variant of the protocol that a stream speaks.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Protocol {
    /// Endpoint discovery, state of the world.
    Eds,
    /// Endpoint discovery, incremental.
    DeltaEds,
    /// Aggregated discovery, state of the world.
    Ads,
    /// Aggregated discovery, incremental.
    DeltaAds,
}

/// One stream of an Envoy. Ages are in seconds.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Peer {
    /// Its `node.id`.
    pub node: String,
    /// Its `node.cluster`.
    pub node_cluster: String,
    /// Where it called from.
    pub address: String,
    /// What it speaks.
    pub protocol: Protocol,
    /// How long it has been connected.
    pub connected_s: f64,
    /// The clusters it asked for by name, at most 64 of them.
    pub asked: Vec<String>,
    /// Whether it asked for all.
    pub asked_all: bool,
    /// The version of the last snapshot it took.
    pub accepted: Option<String>,
    /// When it did.
    pub accepted_age_s: Option<f64>,
    /// How long it has had a response without answering it.
    pub waiting_s: Option<f64>,
    /// The last it did not take.
    pub rejected: Option<Rejected>,
    /// Requests for other things than endpoints, which were ignored.
    pub ignored: u64,
}

/// A response that an Envoy did not take. It goes on with what it had.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Rejected {
    /// How long ago.
    pub age_s: f64,
    /// The version of the snapshot.
    pub version: String,
    /// The clusters that were in the response.
    pub clusters: Vec<String>,
    /// Envoy's words.
    pub message: String,
}

/// All of them. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Peers {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Debug, Default)]
struct Inner {
    next: u64,
    streams: BTreeMap<u64, Entry>,
}

#[derive(Debug)]
struct Entry {
    address: Arc<str>,
    protocol: Protocol,
    connected: Instant,
    node: String,
    node_cluster: String,
    asked: Vec<String>,
    asked_all: bool,
    accepted: Option<(String, Instant)>,
    waiting: Option<Instant>,
    rejected: Option<(Rejected, Instant)>,
    ignored: u64,
}

/// The place of one stream among the peers, until it is dropped.
#[derive(Debug)]
pub(super) struct Seat {
    peers: Peers,
    id: u64,
}

// === impl Peers ===

impl Peers {
    /// All streams, the oldest first.
    pub fn list(&self) -> Vec<Peer> {
        let now = Instant::now();
        let age = |since: Instant| now.saturating_duration_since(since).as_secs_f64();
        let view = |entry: &Entry| Peer {
            node: entry.node.clone(),
            node_cluster: entry.node_cluster.clone(),
            address: entry.address.to_string(),
            protocol: entry.protocol,
            connected_s: age(entry.connected),
            asked: entry.asked.clone(),
            asked_all: entry.asked_all,
            accepted: entry.accepted.as_ref().map(|(version, _)| version.clone()),
            accepted_age_s: entry.accepted.as_ref().map(|(_, at)| age(*at)),
            waiting_s: entry.waiting.map(age),
            rejected: entry
                .rejected
                .as_ref()
                .map(|(rejected, at)| Rejected { age_s: age(*at), ..rejected.clone() }),
            ignored: entry.ignored,
        };
        self.lock().streams.values().map(view).collect()
    }

    /// How many streams there are.
    pub fn count(&self) -> usize {
        self.lock().streams.len()
    }

    pub(super) fn sit(&self, address: Arc<str>, protocol: Protocol) -> Seat {
        let mut inner = self.lock();
        let id = inner.next;
        inner.next += 1;
        let entry = Entry {
            address,
            protocol,
            connected: Instant::now(),
            node: String::new(),
            node_cluster: String::new(),
            asked: Vec::new(),
            asked_all: false,
            accepted: None,
            waiting: None,
            rejected: None,
            ignored: 0,
        };
        inner.streams.insert(id, entry);
        Seat { peers: self.clone(), id }
    }

    /// Nothing here panics halfway through a change, so what is there is whole.
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Seat ===

impl Seat {
    /// It said who it is. Returns its node id as it is shown.
    pub(super) fn introduced(&self, node: &Node) -> String {
        let name = short(&node.id, LONGEST_NAME);
        self.change(|entry| {
            entry.node.clone_from(&name);
            entry.node_cluster = short(&node.cluster, LONGEST_NAME);
        });
        name
    }

    pub(super) fn asked(&self, known: &Known) {
        self.change(|entry| {
            entry.asked = known.names().take(MOST_CLUSTERS).map(str::to_owned).collect();
            entry.asked_all = known.is_wildcard();
        });
    }

    pub(super) fn ignored(&self) {
        self.change(|entry| entry.ignored += 1);
    }

    pub(super) fn sent(&self) {
        self.change(|entry| entry.waiting = Some(Instant::now()));
    }

    pub(super) fn accepted(&self, version: &str) {
        self.change(|entry| {
            entry.waiting = None;
            entry.accepted = Some((version.to_owned(), Instant::now()));
        });
    }

    pub(super) fn rejected(&self, version: &str, clusters: &[String], message: &str) -> Rejected {
        let rejected = Rejected {
            age_s: 0.0,
            version: version.to_owned(),
            clusters: clusters.to_vec(),
            message: short(message, LONGEST_MESSAGE),
        };
        self.change(|entry| {
            entry.waiting = None;
            entry.rejected = Some((rejected.clone(), Instant::now()));
        });
        rejected
    }

    fn change(&self, change: impl FnOnce(&mut Entry)) {
        if let Some(entry) = self.peers.lock().streams.get_mut(&self.id) {
            change(entry);
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.peers.lock().streams.remove(&self.id);
    }
}

/// What came from outside, fit to be shown: short, and without control characters.
fn short(text: &str, most: usize) -> String {
    text.chars().take(most).map(|char| if char.is_control() { ' ' } else { char }).collect()
}
