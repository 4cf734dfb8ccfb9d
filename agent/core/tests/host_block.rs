//! The host-block guard: what it asks for, and that it is in time.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test")]

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr},
    time::Duration,
};

use agent_core::{
    Time,
    health::{
        AddressErrors, ConnectErrors, Counted, HostBlockGuard,
        host_block::{Look, News, RESET_GAP, Reset, Unseen, Way},
    },
};
use proptest::prelude::*;

const PROXY: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 1, 5));
const SECOND: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 1, 6));
const STRANGER: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 9, 9));

fn at(seconds: f64) -> Time {
    Time::AGENT_START + Duration::from_secs_f64(seconds)
}

fn counted(limit: u64, errors: &[(IpAddr, u64)]) -> ConnectErrors {
    let addresses = errors
        .iter()
        .map(|(address, errors)| (*address, AddressErrors { errors: *errors, refused: 0 }))
        .collect();
    ConnectErrors { limit, counted: Counted::ByAddress { own: Some(PROXY), addresses } }
}

fn together(limit: u64, aborted: u64) -> ConnectErrors {
    ConnectErrors { limit, counted: Counted::Together { aborted, why: Unseen::PerformanceSchemaOff } }
}

fn ours() -> BTreeMap<IpAddr, Way> {
    BTreeMap::from([(PROXY, Way::Own)])
}

/// Looks, one a second, at these counts of the proxy's address.
fn looks(guard: &mut HostBlockGuard, errors: &[u64]) -> Vec<Look> {
    let look = |(second, errors): (usize, &u64)| {
        guard.look(at(second as f64), &counted(100, &[(PROXY, *errors)]), &ours())
    };
    errors.iter().enumerate().map(look).collect()
}

#[test]
fn half_of_the_limit_asks_for_a_login_and_says_so() {
    let mut guard = HostBlockGuard::default();
    let seen = looks(&mut guard, &[0, 20, 35, 49, 50, 0]);
    for look in &seen[..4] {
        assert_eq!((look.reset, &*look.news), (None, [].as_slice()));
    }
    assert_eq!(seen[4].reset, Some(Reset::Own));
    assert_eq!(seen[4].news, [News::Near { address: PROXY, errors: 50, way: Way::Own, loud: true }]);
    assert!(seen[4].next < seen[3].next, "it is looked at more often while it is near");
    assert_eq!(seen[5].news, [News::Reset { address: PROXY, before: 50, after: 0, loud: true }]);
    assert_eq!(seen[5].reset, None);
}

#[test]
fn of_a_small_limit_half_is_rounded_up() {
    let mut guard = HostBlockGuard::default();
    let mut five = |second, errors| guard.look(at(second), &counted(5, &[(PROXY, errors)]), &ours()).reset;
    assert_eq!(five(0.0, 2), None);
    assert_eq!(five(1.0, 3), Some(Reset::Own));
    let mut guard = HostBlockGuard::default();
    let one = guard.look(at(0.0), &counted(1, &[(PROXY, 0)]), &ours());
    assert_eq!((one.reset, one.news), (None, vec![]), "the first failure blocks: nothing is near");
}

#[test]
fn trouble_that_goes_on_is_reset_each_time_and_told_now_and_then() {
    let mut guard = HostBlockGuard::default();
    let errors: Vec<u64> = [10, 30, 60, 0].repeat(100);
    let seen = looks(&mut guard, &errors);
    assert_eq!(seen.iter().filter(|look| look.reset.is_some()).count(), 100);
    let loud = |look: &&Look| look.news.iter().any(|news| matches!(news, News::Near { loud: true, .. }));
    assert_eq!(seen.iter().filter(loud).count(), 2, "400 seconds of it");
}

#[test]
fn a_blocked_address_is_told_once_and_no_login_is_wasted_on_it() {
    let mut guard = HostBlockGuard::default();
    let seen = looks(&mut guard, &[100, 100, 100, 0]);
    assert_eq!(seen[0].news, [News::Blocked { address: PROXY, refused: 0 }]);
    assert_eq!(seen[1].news, []);
    assert!(seen.iter().all(|look| look.reset.is_none()));
    assert_eq!(seen[3].news, [News::Unblocked { address: PROXY }]);
}

#[test]
fn logins_that_change_nothing_become_rare_and_are_told() {
    let mut guard = HostBlockGuard::default();
    let seen = looks(&mut guard, &[60; 600]);
    let asked = seen.iter().filter(|look| look.reset.is_some()).count();
    assert!((8..=20).contains(&asked), "{asked} logins in ten minutes");
    let told: Vec<&News> = seen.iter().flat_map(|look| &look.news).collect();
    assert_eq!(
        told,
        [
            &News::Near { address: PROXY, errors: 60, way: Way::Own, loud: true },
            &News::NotReset { address: PROXY, errors: 60 },
        ]
    );
}

#[test]
fn other_peoples_hosts_are_none_of_the_agents_business() {
    let mut guard = HostBlockGuard::default();
    let look = guard.look(at(0.0), &counted(100, &[(STRANGER, 99)]), &ours());
    assert_eq!((look.reset, look.news), (None, vec![]));
}

#[test]
fn an_address_that_the_agent_cannot_come_from_is_told_and_not_reset() {
    let mut guard = HostBlockGuard::default();
    let ours = BTreeMap::from([(SECOND, Way::None)]);
    let look = guard.look(at(0.0), &counted(100, &[(SECOND, 70)]), &ours);
    assert_eq!(look.news, [News::Near { address: SECOND, errors: 70, way: Way::None, loud: true }]);
    assert_eq!(look.reset, None);
}

#[test]
fn of_two_addresses_the_nearer_one_goes_first() {
    let mut guard = HostBlockGuard::default();
    let ours = BTreeMap::from([(PROXY, Way::Own), (SECOND, Way::ThisHost)]);
    let first = guard.look(at(0.0), &counted(100, &[(PROXY, 60), (SECOND, 80)]), &ours);
    assert_eq!(first.reset, Some(Reset::From(SECOND)));
    let then = guard.look(at(0.25), &counted(100, &[(PROXY, 60)]), &ours);
    assert_eq!(then.reset, Some(Reset::Own));
}

#[test]
fn without_addresses_the_growth_of_all_failures_counts_and_that_is_told() {
    let mut guard = HostBlockGuard::default();
    let first = guard.look(at(0.0), &together(100, 5_000), &BTreeMap::new());
    assert_eq!(first.news, [News::CannotTell(Unseen::PerformanceSchemaOff)]);
    assert_eq!(first.reset, None, "what failed before the agent came may be long ago");
    assert_eq!(guard.look(at(1.0), &together(100, 5_049), &BTreeMap::new()).reset, None);
    let half = guard.look(at(2.0), &together(100, 5_050), &BTreeMap::new());
    assert_eq!(half.reset, Some(Reset::Own));
    assert_eq!(half.news, [News::Growing { aborted: 50, loud: true }]);
    assert_eq!(guard.look(at(5.0), &together(100, 5_099), &BTreeMap::new()).reset, None);
    let restarted = guard.look(at(6.0), &together(100, 3), &BTreeMap::new());
    assert_eq!((restarted.reset, restarted.news), (None, vec![]), "the server counts from 0 again");
}

#[test]
fn a_server_that_blocks_nobody_is_left_alone() {
    let mut guard = HostBlockGuard::default();
    let seen = ConnectErrors { limit: 1, counted: Counted::Never };
    let look = guard.look(at(0.0), &seen, &ours());
    assert_eq!((look.reset, look.news), (None, vec![]));
}

proptest! {
    /// While fewer than half of the limit fail within one gap, and the login it asks for is
    /// let through, no address is ever blocked.
    #[test]
    fn it_is_in_time(
        limit in 4_u64..200,
        steps in prop::collection::vec(0_u64..=100, 1..200),
    ) {
        let mut guard = HostBlockGuard::default();
        let mut errors = 0;
        let mut now = Time::AGENT_START;
        for percent in steps {
            errors += (limit - 1) / 2 * percent / 100;
            prop_assert!(errors < limit, "blocked at {errors} of {limit}");
            let look = guard.look(now, &counted(limit, &[(PROXY, errors)]), &ours());
            if look.reset.is_some() {
                errors = 0;
            }
            now = now + RESET_GAP;
        }
    }

    /// Whatever is counted, and whether logins help or not: no address costs more than one
    /// login a gap, the instance no more than four a second, and none is asked for where it
    /// cannot help.
    #[test]
    fn it_is_gentle(
        limit in 0_u64..20,
        schema in any::<bool>(),
        looks in prop::collection::vec((1_u64..2_000, 0_u64..25, 0_u64..25, any::<bool>()), 1..300),
    ) {
        let mut guard = HostBlockGuard::default();
        let mut now = Time::AGENT_START;
        let ours = BTreeMap::from([(PROXY, Way::Own), (SECOND, Way::ThisHost), (STRANGER, Way::None)]);
        let mut asked: Vec<(Time, Reset)> = Vec::new();
        for (wait, one, other, known) in looks {
            now = now + Duration::from_millis(wait);
            let seen = if schema {
                counted(limit, &[(PROXY, one), (SECOND, other), (STRANGER, one)])
            } else {
                together(limit, one * 10)
            };
            let ours = if known { ours.clone() } else { BTreeMap::new() };
            let look = guard.look(now, &seen, &ours);
            let Some(reset) = look.reset else { continue };
            if schema {
                let errors = match reset {
                    Reset::Own => one,
                    Reset::From(address) => {
                        prop_assert_eq!(address, SECOND);
                        other
                    }
                };
                prop_assert!(known && errors > 0 && errors < limit, "{errors} of {limit}");
            } else {
                prop_assert_eq!(reset, Reset::Own);
            }
            asked.push((now, reset));
        }
        for pair in asked.windows(2) {
            prop_assert!(pair[1].0.since(pair[0].0) >= Duration::from_millis(250));
        }
        for (index, (time, reset)) in asked.iter().enumerate() {
            let next = asked[index + 1..].iter().find(|(_, other)| other == reset);
            prop_assert!(next.is_none_or(|(next, _)| next.since(*time) >= RESET_GAP), "{asked:?}");
        }
    }
}
