//! What the peer of one stream asked for, was told, and took. Pure: no clock, no I/O.
//!
//! One response is under way at a time. What changes meanwhile waits in the snapshot,
//! not in a queue: the next response is made when the last one has been answered, of
//! what is then true. So a slow peer costs nothing and skips what it would have missed.
//!
//! What was rejected is not sent again until it changes. Since one answer is given to a
//! whole response, the clusters of a rejected one are then sent one by one, once: a
//! cluster that Envoy does not take never keeps another from it.
//!
//! - [`StateOfTheWorld`]: the variant whose requests name everything wanted.
//! - [`Incremental`]: the variant ("delta") whose requests name what changes.

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

/// Names that one stream may ask for; an agent serves far fewer clusters.
const MOST_NAMES: usize = 512;

/// The length of such a name, in bytes.
const LONGEST_NAME: usize = 256;

/// The length of all names of one stream together, in bytes: with what is remembered of each, the
/// most that a stream costs.
const ALL_NAMES: usize = 16 << 10;

/// The length of a version that a peer says it has. The agent's own are shorter.
const LONGEST_VERSION: usize = 64;

/// The name that stands for all.
const ALL: &str = "*";

/// One variant of the protocol, on one stream, for one type of resource.
pub trait Subscription: Default + Send + 'static {
    /// What the peer says.
    type Request: Send + 'static;
    /// What it is sent.
    type Response: Send + 'static;

    /// Takes in a request.
    fn hear(&mut self, request: &Self::Request) -> Result<Heard, Refused>;

    /// What to send now, if anything, given what is true now.
    fn push(&mut self, snapshot: &Snapshot) -> Option<Push<Self::Response>>;

    /// What the peer knows and wants.
    fn known(&self) -> &Known;
}

/// A response, and what is in it.
#[derive(Clone, Debug, PartialEq)]
pub struct Push<R> {
    /// The message.
    pub response: R,
    /// The version of the snapshot it was made of.
    pub version: String,
    /// The clusters in it, the removed ones included.
    pub clusters: Vec<String>,
}

/// What a request meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    /// It asks, and answers nothing.
    Asked,
    /// The last response was taken: of a snapshot of this version.
    Accepted {
        /// The version of the snapshot.
        version: String,
    },
    /// The last response was not taken.
    Rejected {
        /// The version of the snapshot.
        version: String,
        /// The clusters that were in it.
        clusters: Vec<String>,
    },
    /// It answers a response that is not the last: the peer has not read on yet, and what it
    /// wants will be said by its answer to the last.
    Stale,
}

/// Why a stream is ended. The peer is at fault.
#[derive(Copy, Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// More names than any Envoy asks an agent for.
    #[error("asks for more than {MOST_NAMES} clusters on one stream")]
    TooManyNames,
    /// Long names, and many.
    #[error("asks for clusters whose names have more than {ALL_NAMES} bytes together on one stream")]
    LongNames,
    /// A name that no cluster has.
    #[error("asks for a cluster with a name longer than {LONGEST_NAME} bytes")]
    LongName,
}

/// What the peer knows and wants: the part that both variants share.
#[derive(Clone, Debug, Default)]
pub struct Known {
    /// Everything there is, whatever its name.
    wildcard: bool,
    names: BTreeSet<String>,
    /// What it was last told of each cluster, whether it took that or not.
    told: BTreeMap<String, Told>,
    /// What it has to be told one by one, after it rejected them together.
    alone: BTreeSet<String>,
    flight: Option<Flight>,
    nonces: u64,
}

/// The version of a cluster. `None` is: it is not there.
type Told = Option<Arc<str>>;

/// A response that has not been answered.
#[derive(Clone, Debug)]
struct Flight {
    nonce: String,
    version: String,
    content: Vec<(String, Told)>,
}

/// Something to send.
struct Due<'a> {
    nonce: String,
    resources: Vec<(&'a str, &'a Resource)>,
    removed: Vec<String>,
}

// === impl Known ===

impl Known {
    /// The clusters asked for by name.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.names.iter().map(String::as_str)
    }

    /// Whether everything is asked for.
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

    /// The answer to the response under way, if it is one.
    fn answered(&mut self, nonce: &str, took: bool) -> Option<Heard> {
        let flight = self.flight.take_if(|flight| flight.nonce == nonce)?;
        if took {
            return Some(Heard::Accepted { version: flight.version });
        }
        if flight.content.len() > 1 {
            for (name, told) in &flight.content {
                // Removals cannot be the reason, and what was asked for again meanwhile is due anyway.
                if told.is_some() && self.told.get(name) == Some(told) {
                    self.told.remove(name);
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

    /// What is not wanted any more is not remembered, so that it is sent when it is wanted again.
    fn forget_unwanted(&mut self) {
        if !self.wildcard {
            let names = &self.names;
            self.told.retain(|name, _| names.contains(name));
            self.alone.retain(|name| names.contains(name));
        }
    }

    /// What these names leave out is sent again, should it still be wanted when its turn comes.
    fn forget_unnamed(&mut self, names: &[String]) {
        if !self.wildcard {
            self.told.retain(|told, _| names.contains(told));
        }
    }

    /// What to send. With `removals`, what is not there is said to be not there; a cluster
    /// of which nothing is known yet is left as it is in any case.
    fn due<'a>(&mut self, snapshot: &'a Snapshot, removals: bool) -> Option<Due<'a>> {
        if self.flight.is_some() {
            return None;
        }
        let mut names: BTreeSet<String> = self.names.clone();
        if self.wildcard {
            names.extend(snapshot.names().map(str::to_owned));
            names.extend(self.told.keys().cloned());
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
            let told = snapshot.get(&name).map(|resource| resource.version.clone());
            match snapshot.entry(&name) {
                Some(entry) => due.resources.push(entry),
                None => due.removed.push(name.clone()),
            }
            // Of what only the wildcard brought, nothing is left to remember.
            if told.is_none() && !self.names.contains(&name) {
                self.told.remove(&name);
            } else {
                self.told.insert(name.clone(), told.clone());
            }
            content.push((name, told));
        }
        self.flight = Some(Flight { nonce, version: snapshot.version().to_owned(), content });
        Some(due)
    }

    fn is_due(&self, name: &str, snapshot: &Snapshot, removals: bool) -> bool {
        let told = self.told.get(name);
        match snapshot.version_of(name) {
            Some(version) => told.is_none_or(|told| told.as_deref() != Some(version)),
            None => removals && !snapshot.is_pending(name) && told != Some(&None),
        }
    }

    fn clusters_under_way(&self) -> Vec<String> {
        let flight = self.flight.iter();
        flight.flat_map(|flight| flight.content.iter().map(|(name, _)| name.clone())).collect()
    }
}

/// Refuses names that would take too much to remember.
fn bounded<'a>(names: impl Iterator<Item = &'a String>) -> Result<(), Refused> {
    let length: usize = names.map(String::len).sum();
    if length > ALL_NAMES { Err(Refused::LongNames) } else { Ok(()) }
}
