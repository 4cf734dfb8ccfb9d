//! Names of endpoints to addresses, again and again, for endpoint discovery takes no names.
//!
//! The system's resolver is asked, as for the agent's own logins: what `/etc/hosts`, nsswitch
//! and a local resolver say counts for both alike. It tells no time to live, so each name is
//! asked for again after that of RDS's names, 5 s; caching is the local resolver's.
//!
//! An answer counts for what it says, not for what it leaves out: a lookup that fails or finds
//! nothing leaves the last addresses in force, for as long as it takes. Another answer than
//! the last has to be given twice in a row; so one that comes and goes, as with servers that
//! take turns, changes nothing, and a real move is seen a quarter of a second later.

use std::{collections::BTreeMap, fmt::Debug, future::Future, io, net::SocketAddr, time::Duration};

use futures_util::future::join_all;
use tokio::{sync::watch, time::sleep};

/// How often a name is asked for: the time to live of the names of RDS.
const EVERY: Duration = Duration::from_secs(5);

/// How soon another answer than the last is asked for again.
const CONFIRM: Duration = Duration::from_millis(250);

/// How soon a name that was never found is asked for again.
const RETRY: Duration = Duration::from_secs(1);

/// A host, by name or address, and a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The name, or an IP address, which is what it says.
    pub host: String,
    /// The port.
    pub port: u16,
}

/// Who knows the addresses.
pub trait Resolver: Sync {
    /// All addresses of a name.
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

/// News of one name, told once each.
#[derive(Debug)]
pub enum News<'a, K> {
    /// It has these addresses from now on.
    Found(&'a K, &'a [SocketAddr]),
    /// It cannot be found; what it had, if anything, stays in force.
    Lost(&'a K, &'a io::Error),
}

/// Looks the names up for ever and publishes each change. A name that was never found is not
/// in what is published. One name's lookup never waits for another's.
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
            let (changed, again) = answers.heard(result.ok());
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

/// What a name's answers add up to.
#[derive(Debug, Default)]
struct Answers {
    in_force: Option<Vec<SocketAddr>>,
    /// Another answer, given once.
    other: Option<Vec<SocketAddr>>,
}

impl Answers {
    /// Takes in an answer, `None` for none. Says whether what is in force changed, and how soon
    /// to ask again.
    fn heard(&mut self, answer: Option<Vec<SocketAddr>>) -> (bool, Duration) {
        let Some(mut answer) = answer else {
            self.other = None;
            return (false, if self.in_force.is_some() { EVERY } else { RETRY });
        };
        // Their order means nothing: servers shuffle it.
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
    fn the_first_answer_counts_at_once_and_another_when_it_is_given_twice() {
        let mut answers = Answers::default();
        assert_eq!(answers.heard(Some(addresses(&[1]))), (true, EVERY));
        assert_eq!(answers.heard(Some(addresses(&[2]))), (false, CONFIRM));
        assert_eq!(answers.heard(Some(addresses(&[2]))), (true, EVERY));
        assert_eq!(answers.in_force, Some(addresses(&[2])));
    }

    #[test]
    fn answers_that_take_turns_change_nothing() {
        let mut answers = Answers::default();
        answers.heard(Some(addresses(&[1])));
        for _ in 0..10 {
            assert_eq!(answers.heard(Some(addresses(&[2]))), (false, CONFIRM));
            assert_eq!(answers.heard(Some(addresses(&[1]))), (false, EVERY));
        }
    }

    #[test]
    fn the_order_of_addresses_means_nothing() {
        let mut answers = Answers::default();
        answers.heard(Some(addresses(&[1, 2])));
        assert_eq!(answers.heard(Some(addresses(&[2, 1, 2]))), (false, EVERY));
    }

    proptest! {
        #[test]
        fn what_was_found_is_never_lost(heard in prop::collection::vec(prop::option::of(0..3_u8), 1..40)) {
            let mut answers = Answers::default();
            let mut found = false;
            for answer in heard {
                found |= answer.is_some();
                answers.heard(answer.map(|last| addresses(&[last])));
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
    async fn a_move_is_published_and_a_resolver_that_fails_empties_nothing() {
        let target = |host: &str| Target { host: host.into(), port: 5_432 };
        let names = BTreeMap::from([("a", target("a")), ("b", target("b")), ("slow", target("slow"))]);
        let script = Script(Mutex::new(BTreeMap::from([("a".into(), addresses(&[1]))])));
        let (publish, mut found) = watch::channel(BTreeMap::new());
        let news = Mutex::new(Vec::new());
        let told = |it: News<'_, &str>| {
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
            assert!(!found.has_changed().unwrap(), "nobody is where it was not");
            set("a", Some(addresses(&[3])));
            found.changed().await.unwrap();
            assert_eq!(found.borrow_and_update()["a"], addresses(&[3]));
        };
        tokio::select! {
            () = story => {}
            () = resolve(&names, &script, &publish, told) => unreachable!("it goes on for ever"),
        }
        let news = news.into_inner().unwrap();
        assert_eq!(news, ["a found", "b lost", "b found", "a lost", "a found", "a found"]);
    }
}
