//! Connected Envoys, and what they accepted and rejected. For display.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use serde::Serialize;
use tokio::time::Instant;

use super::Known;
use crate::proto::Node;

/// Names are cut to this many characters.
const LONGEST_NAME: usize = 200;

/// Messages of rejections are cut to this many characters.
const LONGEST_MESSAGE: usize = 1_000;

/// Listed clusters of one stream.
const MOST_CLUSTERS: usize = 64;

/// The variant of the protocol of a stream.
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
    /// The `node.id` of the Envoy.
    pub node: String,
    /// The `node.cluster` of the Envoy.
    pub node_cluster: String,
    pub address: String,
    pub protocol: Protocol,
    pub connected_s: f64,
    /// The clusters it subscribed to by name, at most 64 of them.
    pub asked: Vec<String>,
    /// Whether it subscribed to all clusters.
    pub asked_all: bool,
    /// The version of the last snapshot with an ACK.
    pub accepted: Option<String>,
    pub accepted_age_s: Option<f64>,
    /// The age of an unanswered response.
    pub waiting_s: Option<f64>,
    pub rejected: Option<Rejected>,
    /// Ignored requests for other resources than endpoints.
    pub ignored: u64,
}

/// A response with a NACK: Envoy keeps what it had.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Rejected {
    pub age_s: f64,
    /// The version of the snapshot that was sent.
    pub version: String,
    /// The clusters that were in the response.
    pub clusters: Vec<String>,
    pub message: String,
}

/// All streams. Cheap to clone.
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

/// The entry of one stream, until it is dropped.
#[derive(Debug)]
pub(super) struct Registration {
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

    /// The number of streams.
    pub fn count(&self) -> usize {
        self.lock().streams.len()
    }

    pub(super) fn register(&self, address: Arc<str>, protocol: Protocol) -> Registration {
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
        Registration { peers: self.clone(), id }
    }

    /// No change panics halfway, so a poisoned lock guards consistent data.
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Registration ===

impl Registration {
    /// Returns the node id as it is displayed.
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

impl Drop for Registration {
    fn drop(&mut self) {
        self.peers.lock().streams.remove(&self.id);
    }
}

/// Text from outside, for display: short, and without control characters.
fn short(text: &str, most: usize) -> String {
    text.chars().take(most).map(|char| if char.is_control() { ' ' } else { char }).collect()
}
