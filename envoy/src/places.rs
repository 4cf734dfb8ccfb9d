//! Places that many callers share: connections, streams, and the room for their messages.
//!
//! While there are free ones anybody gets one. After that the caller with the most has to give
//! up one: among peers (hosts, or processes on a Unix socket) the one that has the most, among
//! its connections the one that has the most, and of those its newest. So a newcomer that has
//! nothing always gets a place, and a flood takes them from itself. Who has been there for
//! long stays, for most of what floods a listener is one caller that comes again and again.

use std::{
    collections::{BTreeMap, HashMap},
    hash::Hash,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use crate::serve::Caller;

/// So many places. Cheap to clone; all clones are one.
#[derive(Clone, Debug)]
pub struct Places {
    most: usize,
    taken: Arc<Mutex<Taken>>,
}

#[derive(Debug, Default)]
struct Taken {
    next: u64,
    /// What all weigh together.
    weight: usize,
    /// The newest last.
    holders: BTreeMap<u64, Holder>,
}

#[derive(Debug)]
struct Holder {
    caller: Caller,
    weight: usize,
    lost: CancellationToken,
}

/// A place, until it is dropped, or lost to somebody who has fewer.
#[derive(Debug)]
pub struct Place {
    places: Places,
    number: u64,
    caller: Caller,
    lost: CancellationToken,
}

// === impl Places ===

impl Places {
    /// So many, all free.
    pub fn new(most: usize) -> Self {
        Self { most, taken: Arc::default() }
    }

    /// A place, or one as large as `weight` of them, if need be at the cost of those who have
    /// more. `None` for one that would have the most itself.
    pub fn take(&self, caller: &Caller, weight: usize) -> Option<Place> {
        let mut taken = self.lock();
        if weight > self.most {
            return None;
        }
        while taken.weight + weight > self.most {
            let victim = taken.victim(caller, weight)?;
            if let Some(holder) = taken.remove(victim) {
                holder.caller.owes();
                holder.lost.cancel();
            }
        }
        let (number, lost) = (taken.next, CancellationToken::new());
        taken.next += 1;
        taken.weight += weight;
        taken.holders.insert(number, Holder { caller: caller.clone(), weight, lost: lost.clone() });
        Some(Place { places: self.clone(), number, caller: caller.clone(), lost })
    }

    /// Held for moments only.
    fn lock(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Taken {
    /// Which place a caller gets that has none free, if any. Looks at all of them: they are few,
    /// and it is asked only while there are too many.
    fn victim(&self, caller: &Caller, weight: usize) -> Option<u64> {
        let peer = largest(self.holders.iter(), |it| &it.peer, Some((&caller.peer, weight)))?;
        let of_peer = self.holders.iter().filter(|(_, it)| it.caller.peer == *peer);
        let own = (*peer == caller.peer).then_some((&caller.connection, weight));
        let connection = largest(of_peer.clone(), |it| &it.connection, own)?;
        if *connection == caller.connection {
            return None;
        }
        of_peer.rev().find(|(_, it)| it.caller.connection == *connection).map(|(number, _)| *number)
    }

    fn remove(&mut self, number: u64) -> Option<Holder> {
        let holder = self.holders.remove(&number)?;
        self.weight -= holder.weight;
        Some(holder)
    }
}

/// Who has the most, `own` included, who is about to have so much more. Of those who have the same
/// it is the one that has the newest, and not `own`.
fn largest<'a, K: Eq + Hash>(
    holders: impl Iterator<Item = (&'a u64, &'a Holder)>,
    key: impl Fn(&'a Caller) -> &'a K,
    own: Option<(&'a K, usize)>,
) -> Option<&'a K> {
    let mut held: HashMap<&K, (usize, u64)> =
        own.map(|(own, weight)| (own, (weight, 0))).into_iter().collect();
    for (number, holder) in holders {
        let (weight, newest) = held.entry(key(&holder.caller)).or_default();
        *weight += holder.weight;
        *newest = *number;
    }
    let is_own = |key: &K| own.is_some_and(|(own, _)| own == key);
    held.into_iter()
        .max_by_key(|(key, (weight, newest))| (*weight, !is_own(key), *newest))
        .map(|(key, _)| key)
}

// === impl Place ===

impl Place {
    /// Ready when somebody else has got it.
    pub fn lost(&self) -> WaitForCancellationFutureOwned {
        self.lost.clone().cancelled_owned()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.places.lock().remove(self.number).is_none() {
            self.caller.has_left();
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn caller(peer: u8, connection: u8) -> Caller {
        Caller::new("here", &format!("peer {peer}"), u64::from(peer) << 8 | u64::from(connection))
    }

    fn held(places: &Places, caller: &Caller) -> usize {
        places.lock().holders.values().filter(|it| it.caller.connection == caller.connection).count()
    }

    #[test]
    fn who_has_the_most_makes_room_and_its_newest_goes() {
        let places = Places::new(4);
        let (one, many) = (caller(1, 1), caller(2, 1));
        let honest = places.take(&one, 1).unwrap();
        let flood: Vec<_> = (0..3).map(|_| places.take(&many, 1).unwrap()).collect();
        assert!(places.take(&many, 1).is_none(), "its own are the most");
        let second = places.take(&one, 1).unwrap();
        let lost: Vec<bool> = flood.iter().map(|place| place.lost.is_cancelled()).collect();
        assert_eq!(lost, [false, false, true]);
        assert!(!honest.lost.is_cancelled() && !second.lost.is_cancelled());
        drop(flood);
        assert_eq!(places.lock().weight, 2, "what was lost is not given back twice");
    }

    #[test]
    fn a_peer_with_many_connections_has_what_they_have_together() {
        let places = Places::new(8);
        let honest: Vec<_> = (0..3).map(|_| places.take(&caller(1, 1), 1).unwrap()).collect();
        let flood: Vec<_> = (0..100).map(|number| places.take(&caller(2, number), 1).unwrap()).collect();
        assert!(honest.iter().all(|place| !place.lost.is_cancelled()));
        assert_eq!(flood.iter().filter(|place| !place.lost.is_cancelled()).count(), 5);
    }

    #[test]
    fn a_large_place_is_made_of_several_and_none_is_larger_than_all() {
        let places = Places::new(100);
        let flood: Vec<_> = (0..25).map(|_| places.take(&caller(2, 1), 4).unwrap()).collect();
        let large = places.take(&caller(1, 1), 10).unwrap();
        assert_eq!(flood.iter().filter(|place| place.lost.is_cancelled()).count(), 3);
        assert!(places.take(&caller(1, 1), 101).is_none());
        assert!(!large.lost.is_cancelled());
    }

    proptest! {
        /// Whoever comes and goes: no more than there are, a newcomer always has one, and nobody
        /// loses one to a caller that had as many.
        #[test]
        fn newcomers_have_places_and_only_those_with_more_lose_them(
            most in 1..12_usize,
            steps in proptest::collection::vec((0..3_u8, 0..3_u8, any::<bool>()), 0..200),
        ) {
            let places = Places::new(most);
            let mut kept: Vec<(Caller, Place)> = Vec::new();
            for (peer, connection, leaves) in steps {
                let one = caller(peer, connection);
                if leaves {
                    let at = kept.iter().position(|(caller, _)| caller.connection == one.connection);
                    at.map(|at| kept.swap_remove(at));
                    continue;
                }
                let of_peer = |peer: &str| {
                    places.lock().holders.values().filter(|it| &*it.caller.peer == peer).count()
                };
                let (before, peers_before) = (held(&places, &one), of_peer(&one.peer));
                let others: Vec<_> = kept.iter().map(|(it, _)| (held(&places, it), of_peer(&it.peer))).collect();
                match places.take(&one, 1) {
                    Some(place) => {
                        for ((it, lost), (had, peer_had)) in kept.iter().zip(others) {
                            if lost.lost.is_cancelled() && it.peer == one.peer {
                                prop_assert!(had > before, "{had} {before}");
                            } else if lost.lost.is_cancelled() {
                                prop_assert!(peer_had > peers_before, "{peer_had} {peers_before}");
                            }
                        }
                        kept.push((one, place));
                    }
                    None => prop_assert!(before > 0, "one that has nothing gets a place"),
                }
                kept.retain(|(_, place)| !place.lost.is_cancelled());
                prop_assert!(places.lock().weight <= most);
                prop_assert_eq!(places.lock().holders.len(), kept.len());
            }
        }
    }
}
