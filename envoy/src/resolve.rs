//! Resolves the names of endpoints periodically, since endpoint discovery only takes addresses.
//!
//! The system's resolver is used, as for the agent's own logins, so that `/etc/hosts`, nsswitch and a local
//! resolver apply to both. getaddrinfo returns no TTL, so names are resolved again every 5 s, the TTL of
//! RDS's names.
//!
//! A failed or empty lookup keeps the last addresses, for as long as it fails. A changed answer has to come twice
//! in a row: name servers that disagree change nothing, and a real change is seen 250 ms later.

use std::{collections::BTreeMap, fmt::Debug, future::Future, io, net::SocketAddr, time::Duration};

use futures_util::future::join_all;
use tokio::{sync::watch, time::sleep};

/// The interval between lookups of a name: the TTL of RDS's names.
const EVERY: Duration = Duration::from_secs(5);

/// The pause before a changed answer is confirmed.
const CONFIRM: Duration = Duration::from_millis(250);

/// The interval for a name that was never found.
const RETRY: Duration = Duration::from_secs(1);

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// A name or an IP address.
    pub host: String,
    pub port: u16,
}

pub trait Resolver: Sync {
    fn lookup(&self, target: &Target) -> impl Future<Output = io::Result<Vec<SocketAddr>>> + Send;
}

/// The system's resolver.
#[derive(Copy, Clone, Debug, Default)]
pub struct System;

impl Resolver for System {
    async fn lookup(&self, target: &Target) -> io::Result<Vec<SocketAddr>> {
        Ok(tokio::net::lookup_host((&*target.host, target.port)).await?.collect())
    }
}

/// A change of one name, reported once.
#[derive(Debug)]
pub enum News<'a, K> {
    /// These addresses are used from now on.
    Found(&'a K, &'a [SocketAddr]),
    /// The lookup fails; the last addresses, if any, stay in use.
    Lost(&'a K, &'a io::Error),
}

/// Resolves the names until cancelled (dropped), and publishes each change. A name that was never found is
/// not published. Lookups of different names do not wait for one another.
pub async fn resolve<K: Ord + Clone + Debug + Send + Sync>(
    names: &BTreeMap<K, Target>,
    resolver: &impl Resolver,
    publish: &watch::Sender<BTreeMap<K, Vec<SocketAddr>>>,
    report: impl Fn(News<'_, K>) + Sync,
) {
    let follow = async |name: &K, target: &Target| {
        let mut answers = Answers::default();
        let mut lost = false;
        loop {
            let result = resolver.lookup(target).await.and_then(|addresses| match addresses.len() {
                0 => Err(io::Error::new(io::ErrorKind::NotFound, "no addresses")),
                _ => Ok(addresses),
            });
            match &result {
                Err(error) if !lost => report(News::Lost(name, error)),
                _ => {}
            }
            let found_again = lost && result.is_ok();
            lost = result.is_err();
            let (changed, again) = answers.add(result.ok());
            if let Some(addresses) = answers.in_force.as_deref().filter(|_| changed || found_again) {
                report(News::Found(name, addresses));
            }
            if let Some(addresses) = answers.in_force.as_ref().filter(|_| changed) {
                publish.send_modify(|all| {
                    all.insert(name.clone(), addresses.clone());
                });
            }
            sleep(again).await;
        }
    };
    join_all(names.iter().map(|(name, target)| follow(name, target))).await;
}

#[derive(Debug, Default)]
struct Answers {
    in_force: Option<Vec<SocketAddr>>,
    /// A changed answer that is not confirmed yet.
    other: Option<Vec<SocketAddr>>,
}

impl Answers {
    /// Adds an answer; `None` is a failure. Returns whether the addresses in use changed, and the time until
    /// the next lookup.
    fn add(&mut self, answer: Option<Vec<SocketAddr>>) -> (bool, Duration) {
        let Some(mut answer) = answer else {
            self.other = None;
            return (false, if self.in_force.is_some() { EVERY } else { RETRY });
        };
        // Name servers shuffle them.
        answer.sort_unstable();
        answer.dedup();
        if self.in_force.as_ref() == Some(&answer) {
            self.other = None;
            return (false, EVERY);
        }
        if self.in_force.is_none() || self.other.as_ref() == Some(&answer) {
            self.other = None;
            self.in_force = Some(answer);
            return (true, EVERY);
        }
        self.other = Some(answer);
        (false, CONFIRM)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use proptest::prelude::*;

    use super::*;

    fn addresses(last: &[u8]) -> Vec<SocketAddr> {
        last.iter().map(|last| SocketAddr::from(([10, 0, 0, *last], 5_432))).collect()
    }

    #[test]
    fn the_first_answer_is_used_at_once_and_a_changed_one_after_a_second_lookup() {
        let mut answers = Answers::default();
        assert_eq!(answers.add(Some(addresses(&[1]))), (true, EVERY));
        assert_eq!(answers.add(Some(addresses(&[2]))), (false, CONFIRM));
        assert_eq!(answers.add(Some(addresses(&[2]))), (true, EVERY));
        assert_eq!(answers.in_force, Some(addresses(&[2])));
    }

    #[test]
    fn alternating_answers_change_nothing() {
        let mut answers = Answers::default();
        answers.add(Some(addresses(&[1])));
        for _ in 0..10 {
            assert_eq!(answers.add(Some(addresses(&[2]))), (false, CONFIRM));
            assert_eq!(answers.add(Some(addresses(&[1]))), (false, EVERY));
        }
    }

    #[test]
    fn the_order_of_addresses_does_not_matter() {
        let mut answers = Answers::default();
        answers.add(Some(addresses(&[1, 2])));
        assert_eq!(answers.add(Some(addresses(&[2, 1, 2]))), (false, EVERY));
    }

    proptest! {
        #[test]
        fn known_addresses_are_never_lost(heard in prop::collection::vec(prop::option::of(0..3_u8), 1..40)) {
            let mut answers = Answers::default();
            let mut found = false;
            for answer in heard {
                found |= answer.is_some();
                answers.add(answer.map(|last| addresses(&[last])));
                prop_assert_eq!(answers.in_force.is_some(), found);
            }
        }
    }

    /// Answers by name; `slow` never answers.
    struct Script(Mutex<BTreeMap<String, Vec<SocketAddr>>>);

    impl Resolver for Script {
        async fn lookup(&self, target: &Target) -> io::Result<Vec<SocketAddr>> {
            if target.host == "slow" {
                std::future::pending::<()>().await;
            }
            let found = self.0.lock().unwrap().get(&target.host).cloned();
            found.ok_or_else(|| io::Error::other("no such name"))
        }
    }

    #[tokio::test(start_paused = true)]
    async fn changes_are_published_and_failures_keep_the_addresses() {
        let target = |host: &str| Target { host: host.into(), port: 5_432 };
        let names = BTreeMap::from([("a", target("a")), ("b", target("b")), ("slow", target("slow"))]);
        let script = Script(Mutex::new(BTreeMap::from([("a".into(), addresses(&[1]))])));
        let (publish, mut found) = watch::channel(BTreeMap::new());
        let news = Mutex::new(Vec::new());
        let report = |it: News<'_, &str>| {
            news.lock().unwrap().push(match it {
                News::Found(name, _) => format!("{name} found"),
                News::Lost(name, _) => format!("{name} lost"),
            });
        };
        let set = |name: &str, to: Option<Vec<SocketAddr>>| {
            let mut script = script.0.lock().unwrap();
            match to {
                Some(to) => script.insert(name.to_owned(), to),
                None => script.remove(name),
            };
        };
        let story = async {
            found.changed().await.unwrap();
            assert_eq!(*found.borrow_and_update(), BTreeMap::from([("a", addresses(&[1]))]));
            set("b", Some(addresses(&[2])));
            found.changed().await.unwrap();
            assert_eq!(found.borrow_and_update().len(), 2);
            set("a", None);
            sleep(Duration::from_secs(3_600)).await;
            assert!(!found.has_changed().unwrap(), "a failed lookup changes nothing");
            set("a", Some(addresses(&[3])));
            found.changed().await.unwrap();
            assert_eq!(found.borrow_and_update()["a"], addresses(&[3]));
        };
        tokio::select! {
            () = story => {}
            () = resolve(&names, &script, &publish, report) => unreachable!("it never returns"),
        }
        let news = news.into_inner().unwrap();
        assert_eq!(news, ["a found", "b lost", "b found", "a lost", "a found", "a found"]);
    }
}
