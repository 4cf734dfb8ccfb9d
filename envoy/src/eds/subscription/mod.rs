//! What the peer of one stream subscribed to, received and accepted. Pure: no clock, no I/O.
//!
//! At most one response is unanswered. Changes meanwhile stay in the snapshot, not in a queue: the next
//! response is built from the latest snapshot when the last one was answered. So a slow peer costs nothing
//! and skips intermediate states.
//!
//! A rejected cluster is not sent again until it changes. Since an ACK or NACK is for a whole response, the
//! clusters of a rejected response are then sent one by one, once, so that one rejected cluster does not
//! keep others from Envoy.
//!
//! - [`StateOfTheWorld`]: the variant whose requests name all subscriptions.
//! - [`Incremental`]: the variant ("delta") whose requests name changes of subscriptions.

mod incremental;
mod state_of_the_world;

#[cfg(test)]
mod properties;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

pub use incremental::Incremental;
pub use state_of_the_world::StateOfTheWorld;

use super::{Snapshot, resources::Resource};

/// The most subscriptions of one stream; an agent serves far fewer clusters.
const MOST_NAMES: usize = 512;

/// The maximum length of a name, in bytes.
const LONGEST_NAME: usize = 256;

/// The maximum length of all names of one stream together, in bytes, which bounds the memory of a stream.
const ALL_NAMES: usize = 16 << 10;

/// The maximum length of a version that a peer claims to have, in bytes. The agent's own are shorter.
const LONGEST_VERSION: usize = 64;

/// The wildcard subscribes to all clusters.
const ALL: &str = "*";

/// One variant of the protocol, on one stream, for one type of resource.
pub trait Subscription: Default + Send + 'static {
    type Request: Send + 'static;
    type Response: Send + 'static;

    fn hear(&mut self, request: &Self::Request) -> Result<Heard, Refused>;

    /// The response that is due, if any.
    fn push(&mut self, snapshot: &Snapshot) -> Option<Push<Self::Response>>;

    fn known(&self) -> &Known;
}

#[derive(Clone, Debug, PartialEq)]
pub struct Push<R> {
    pub response: R,
    pub version: String,
    /// The clusters in it, with the removed ones.
    pub clusters: Vec<String>,
}

/// The meaning of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    Asked,
    /// An ACK of the last response.
    Accepted {
        version: String,
    },
    /// A NACK of the last response.
    Rejected {
        version: String,
        clusters: Vec<String>,
    },
    /// An answer to an earlier response: the peer has not read the last one yet. Its answer to that will
    /// have its subscriptions.
    Stale,
}

/// Why a stream is ended; the peer is at fault.
#[derive(Copy, Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error("asks for more than {MOST_NAMES} clusters on one stream")]
    TooManyNames,
    #[error("asks for clusters whose names have more than {ALL_NAMES} bytes together on one stream")]
    LongNames,
    #[error("asks for a cluster with a name longer than {LONGEST_NAME} bytes")]
    LongName,
}

/// The state of the peer, for both variants.
#[derive(Clone, Debug, Default)]
pub struct Known {
    wildcard: bool,
    names: BTreeSet<String>,
    /// What was last sent of each cluster, whether it was accepted or not.
    sent: BTreeMap<String, Sent>,
    /// Clusters to send one by one, after a NACK of all of them together.
    alone: BTreeSet<String>,
    flight: Option<Flight>,
    nonces: u64,
}

/// The version of a cluster; `None`: removed.
type Sent = Option<Arc<str>>;

/// A response that has not been answered.
#[derive(Clone, Debug)]
struct Flight {
    nonce: String,
    version: String,
    content: Vec<(String, Sent)>,
}

struct Due<'a> {
    nonce: String,
    resources: Vec<(&'a str, &'a Resource)>,
    removed: Vec<String>,
}

// === impl Known ===

impl Known {
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.names.iter().map(String::as_str)
    }

    pub fn is_wildcard(&self) -> bool {
        self.wildcard
    }

    /// Whether a response has not been answered yet.
    pub fn is_waiting(&self) -> bool {
        self.flight.is_some()
    }

    /// Whether this is the nonce of the last response, answered or not.
    fn is_last_nonce(&self, nonce: &str) -> bool {
        self.nonces > 0 && nonce == self.nonces.to_string()
    }

    /// The answer to the unanswered response, if it is one.
    fn answered(&mut self, nonce: &str, took: bool) -> Option<Heard> {
        let flight = self.flight.take_if(|flight| flight.nonce == nonce)?;
        if took {
            return Some(Heard::Accepted { version: flight.version });
        }
        if flight.content.len() > 1 {
            for (name, sent) in &flight.content {
                // Removals cannot be the reason, and a renewed subscription is due anyway.
                if sent.is_some() && self.sent.get(name) == Some(sent) {
                    self.sent.remove(name);
                    self.alone.insert(name.clone());
                }
            }
        }
        let clusters = flight.content.into_iter().map(|(name, _)| name).collect();
        Some(Heard::Rejected { version: flight.version, clusters })
    }

    fn want(&mut self, name: &str) -> Result<(), Refused> {
        if name.len() > LONGEST_NAME {
            return Err(Refused::LongName);
        }
        if !self.names.contains(name) {
            if self.names.len() >= MOST_NAMES {
                return Err(Refused::TooManyNames);
            }
            self.names.insert(name.to_owned());
        }
        Ok(())
    }

    /// Forgets clusters without subscription, so that they are sent again after a new one.
    fn forget_unwanted(&mut self) {
        if !self.wildcard {
            let names = &self.names;
            self.sent.retain(|name, _| names.contains(name));
            self.alone.retain(|name| names.contains(name));
        }
    }

    /// Forgets what was sent of clusters that are not named, so that they are sent again if still wanted.
    fn forget_unnamed(&mut self, names: &[String]) {
        if !self.wildcard {
            self.sent.retain(|name, _| names.contains(name));
        }
    }

    /// What to send. With `removals`, missing clusters are sent as removed, except those of which nothing is
    /// known yet.
    fn due<'a>(&mut self, snapshot: &'a Snapshot, removals: bool) -> Option<Due<'a>> {
        if self.flight.is_some() {
            return None;
        }
        let mut names: BTreeSet<String> = self.names.clone();
        if self.wildcard {
            names.extend(snapshot.names().map(str::to_owned));
            names.extend(self.sent.keys().cloned());
        }
        names.retain(|name| self.is_due(name, snapshot, removals));
        self.alone.retain(|name| names.contains(name));
        if let Some(alone) = self.alone.pop_first() {
            names = BTreeSet::from([alone]);
        }
        if names.is_empty() {
            return None;
        }
        self.nonces += 1;
        let nonce = self.nonces.to_string();
        let mut due = Due { nonce: nonce.clone(), resources: Vec::new(), removed: Vec::new() };
        let mut content = Vec::with_capacity(names.len());
        for name in names {
            let version = snapshot.get(&name).map(|resource| resource.version.clone());
            match snapshot.entry(&name) {
                Some(entry) => due.resources.push(entry),
                None => due.removed.push(name.clone()),
            }
            // A removed cluster of the wildcard is forgotten.
            if version.is_none() && !self.names.contains(&name) {
                self.sent.remove(&name);
            } else {
                self.sent.insert(name.clone(), version.clone());
            }
            content.push((name, version));
        }
        self.flight = Some(Flight { nonce, version: snapshot.version().to_owned(), content });
        Some(due)
    }

    fn is_due(&self, name: &str, snapshot: &Snapshot, removals: bool) -> bool {
        let sent = self.sent.get(name);
        match snapshot.version_of(name) {
            Some(version) => sent.is_none_or(|sent| sent.as_deref() != Some(version)),
            None => removals && !snapshot.is_pending(name) && sent != Some(&None),
        }
    }

    fn clusters_under_way(&self) -> Vec<String> {
        let flight = self.flight.iter();
        flight.flat_map(|flight| flight.content.iter().map(|(name, _)| name.clone())).collect()
    }
}

/// Refuses names that are too long together.
fn bounded<'a>(names: impl Iterator<Item = &'a String>) -> Result<(), Refused> {
    let length: usize = names.map(String::len).sum();
    if length > ALL_NAMES { Err(Refused::LongNames) } else { Ok(()) }
}
