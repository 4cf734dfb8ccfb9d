//! Permits that callers share fairly: for connections, for streams, and for bytes of messages.
//!
//! Free permits go to anybody. When none is free, the largest holder loses one to a caller that has
//! fewer: of the peers (hosts, or processes on a Unix socket) the one with the most, of its
//! connections the one with the most, and of its permits the newest. So a caller without any always
//! gets one, and a flood takes permits from itself. The newest goes since a flood usually is one
//! caller that connects again and again.

use std::{
    collections::{BTreeMap, HashMap},
    hash::Hash,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use crate::caller::Caller;

/// A number of permits. Cheap to clone; all clones are one.
#[derive(Clone, Debug)]
pub struct Permits {
    most: usize,
    holders: Arc<Mutex<Holders>>,
}

#[derive(Debug, Default)]
struct Holders {
    next: u64,
    weight: usize,
    /// In the order of arrival.
    by_number: BTreeMap<u64, Holder>,
}

#[derive(Debug)]
struct Holder {
    caller: Caller,
    weight: usize,
    revoked: CancellationToken,
}

/// A permit, until it is dropped or revoked for a caller with fewer.
#[derive(Debug)]
pub struct Permit {
    permits: Permits,
    number: u64,
    caller: Caller,
    revoked: CancellationToken,
}

// === impl Permits ===

impl Permits {
    pub fn new(most: usize) -> Self {
        Self { most, holders: Arc::default() }
    }

    /// Takes one permit with the size of `weight` permits, and revokes those of larger holders if
    /// necessary. `None` where the caller itself would be the largest.
    pub fn take(&self, caller: &Caller, weight: usize) -> Option<Permit> {
        let mut holders = self.lock();
        if weight > self.most {
            return None;
        }
        while holders.weight + weight > self.most {
            let victim = holders.victim(caller, weight)?;
            if let Some(holder) = holders.remove(victim) {
                holder.caller.revoked();
                holder.revoked.cancel();
            }
        }
        let (number, revoked) = (holders.next, CancellationToken::new());
        holders.next += 1;
        holders.weight += weight;
        let holder = Holder { caller: caller.clone(), weight, revoked: revoked.clone() };
        holders.by_number.insert(number, holder);
        Some(Permit { permits: self.clone(), number, caller: caller.clone(), revoked })
    }

    fn lock(&self) -> MutexGuard<'_, Holders> {
        self.holders.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Holders {
    /// The permit to revoke for a caller, if any. Linear in the number of permits, and only called
    /// when none is free.
    fn victim(&self, caller: &Caller, weight: usize) -> Option<u64> {
        let peer = largest(self.by_number.iter(), |it| &it.peer, Some((&caller.peer, weight)))?;
        let of_peer = self.by_number.iter().filter(|(_, it)| it.caller.peer == *peer);
        let own = (*peer == caller.peer).then_some((&caller.connection, weight));
        let connection = largest(of_peer.clone(), |it| &it.connection, own)?;
        if *connection == caller.connection {
            return None;
        }
        of_peer.rev().find(|(_, it)| it.caller.connection == *connection).map(|(number, _)| *number)
    }

    fn remove(&mut self, number: u64) -> Option<Holder> {
        let holder = self.by_number.remove(&number)?;
        self.weight -= holder.weight;
        Some(holder)
    }
}

/// The largest holder, where `own` already counts with the additional weight. Among equals it is the
/// one with the newest permit, and not `own`.
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

// === impl Permit ===

impl Permit {
    /// Ready when it is revoked.
    pub fn revoked(&self) -> WaitForCancellationFutureOwned {
        self.revoked.clone().cancelled_owned()
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if self.permits.lock().remove(self.number).is_none() {
            self.caller.gave_back();
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

    fn held(permits: &Permits, caller: &Caller) -> usize {
        permits.lock().by_number.values().filter(|it| it.caller.connection == caller.connection).count()
    }

    #[test]
    fn the_largest_holder_loses_its_newest_permit() {
        let permits = Permits::new(4);
        let (one, many) = (caller(1, 1), caller(2, 1));
        let honest = permits.take(&one, 1).unwrap();
        let flood: Vec<_> = (0..3).map(|_| permits.take(&many, 1).unwrap()).collect();
        assert!(permits.take(&many, 1).is_none(), "it is the largest holder itself");
        let second = permits.take(&one, 1).unwrap();
        let revoked: Vec<bool> = flood.iter().map(|permit| permit.revoked.is_cancelled()).collect();
        assert_eq!(revoked, [false, false, true]);
        assert!(!honest.revoked.is_cancelled() && !second.revoked.is_cancelled());
        drop(flood);
        assert_eq!(permits.lock().weight, 2, "a revoked permit is not given back twice");
    }

    #[test]
    fn the_permits_of_all_connections_of_a_peer_count() {
        let permits = Permits::new(8);
        let honest: Vec<_> = (0..3).map(|_| permits.take(&caller(1, 1), 1).unwrap()).collect();
        let flood: Vec<_> = (0..100).map(|number| permits.take(&caller(2, number), 1).unwrap()).collect();
        assert!(honest.iter().all(|permit| !permit.revoked.is_cancelled()));
        assert_eq!(flood.iter().filter(|permit| !permit.revoked.is_cancelled()).count(), 5);
    }

    #[test]
    fn a_large_permit_takes_several_and_at_most_all() {
        let permits = Permits::new(100);
        let flood: Vec<_> = (0..25).map(|_| permits.take(&caller(2, 1), 4).unwrap()).collect();
        let large = permits.take(&caller(1, 1), 10).unwrap();
        assert_eq!(flood.iter().filter(|permit| permit.revoked.is_cancelled()).count(), 3);
        assert!(permits.take(&caller(1, 1), 101).is_none());
        assert!(!large.revoked.is_cancelled());
    }

    proptest! {
        /// The total is never exceeded, a newcomer always gets a permit, and no caller loses one to
        /// another that had as many.
        #[test]
        fn newcomers_get_permits_from_larger_holders(
            most in 1..12_usize,
            steps in proptest::collection::vec((0..3_u8, 0..3_u8, any::<bool>()), 0..200),
        ) {
            let permits = Permits::new(most);
            let mut kept: Vec<(Caller, Permit)> = Vec::new();
            for (peer, connection, leaves) in steps {
                let one = caller(peer, connection);
                if leaves {
                    let at = kept.iter().position(|(caller, _)| caller.connection == one.connection);
                    at.map(|at| kept.swap_remove(at));
                    continue;
                }
                let of_peer = |peer: &str| {
                    permits.lock().by_number.values().filter(|it| &*it.caller.peer == peer).count()
                };
                let (before, peers_before) = (held(&permits, &one), of_peer(&one.peer));
                let others: Vec<_> = kept.iter().map(|(it, _)| (held(&permits, it), of_peer(&it.peer))).collect();
                match permits.take(&one, 1) {
                    Some(permit) => {
                        for ((it, held_by), (had, peer_had)) in kept.iter().zip(others) {
                            if held_by.revoked.is_cancelled() && it.peer == one.peer {
                                prop_assert!(had > before, "{had} {before}");
                            } else if held_by.revoked.is_cancelled() {
                                prop_assert!(peer_had > peers_before, "{peer_had} {peers_before}");
                            }
                        }
                        kept.push((one, permit));
                    }
                    None => prop_assert!(before > 0, "a newcomer gets a permit"),
                }
                kept.retain(|(_, permit)| !permit.revoked.is_cancelled());
                prop_assert!(permits.lock().weight <= most);
                prop_assert_eq!(permits.lock().by_number.len(), kept.len());
            }
        }
    }
}
