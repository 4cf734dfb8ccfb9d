//! What the server counts, how the guard takes it, and what a login changes.

use std::{collections::BTreeMap, time::Duration};

use agent_core::{
    FaultKind, Time,
    health::{
        AddressErrors, ConnectErrors, Counted, HostBlockGuard,
        host_block::{News, Reset, Unseen, Way},
    },
};
use integration_tests::{process::wait_for, standin::Options};

use crate::lab::{AGENT, CHECKED, LIMIT, Lab, PATIENCE, counted, errors, ip, of};

#[tokio::test]
async fn clients_that_go_half_way_are_seen_and_the_agents_login_takes_it_back() {
    let lab = Lab::start(Options::default()).await;
    let mut watcher = lab.session(AGENT).await;
    let mut guard = HostBlockGuard::default();
    let ours = BTreeMap::from([(ip(AGENT), Way::Own), (ip(CHECKED), Way::ThisHost)]);
    let mut now = Time::AGENT_START;

    for number in 1..=3 {
        lab.goes_half_way(AGENT).await;
        let seen = counted(&mut watcher, AGENT, number).await;
        let Counted::ByAddress { own, .. } = &seen.counted else { panic!("{seen:?}") };
        assert_eq!((seen.limit, *own), (u64::from(LIMIT), Some(ip(AGENT))), "it knows its own address");
        now = now + Duration::from_secs(1);
        let look = guard.look(now, &seen, &ours);
        assert_eq!(look.reset, (number == 3).then_some(Reset::Own), "{number} of {LIMIT}");
    }
    lab.session(AGENT).await.close().await;
    let look = guard.look(now + Duration::from_secs(1), &counted(&mut watcher, AGENT, 0).await, &ours);
    assert_eq!(look.news, [News::Reset { address: ip(AGENT), before: 3, after: 0, loud: true }]);

    // Another address of the proxy's takes a login from there.
    for _ in 0..4 {
        lab.goes_half_way(CHECKED).await;
    }
    let seen = counted(&mut watcher, CHECKED, 4).await;
    lab.session(AGENT).await.close().await;
    assert_eq!(of(&errors(&mut watcher).await, CHECKED), 4, "a login from elsewhere changes nothing");
    let look = guard.look(now + Duration::from_secs(5), &seen, &ours);
    assert_eq!(look.reset, Some(Reset::From(ip(CHECKED))));
    lab.session(CHECKED).await.close().await;
    counted(&mut watcher, CHECKED, 0).await;

    // A refused token counts nothing, and takes nothing back.
    lab.goes_half_way(CHECKED).await;
    counted(&mut watcher, CHECKED, 1).await;
    let fault = lab.login(CHECKED, "lb_agent", "no token at all").await.err().unwrap();
    assert_eq!(fault.kind, FaultKind::LoginRefused);
    counted(&mut watcher, CHECKED, 1).await;
    watcher.close().await;
    lab.standin.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_kept_connection_outlives_a_block_and_sees_its_end() {
    let lab = Lab::start(Options::default()).await;
    let mut watcher = lab.session(AGENT).await;
    for _ in 0..LIMIT {
        lab.goes_half_way(AGENT).await;
    }
    counted(&mut watcher, AGENT, u64::from(LIMIT)).await;
    let token = lab.standin.token("a", "lb_agent").unwrap();
    let fault = lab.login(AGENT, "lb_agent", &token).await.err().unwrap();
    assert_eq!(fault.kind, FaultKind::HostBlocked);
    let seen = errors(&mut watcher).await;
    let Counted::ByAddress { addresses, .. } = &seen.counted else { panic!("{seen:?}") };
    assert_eq!(addresses[&ip(AGENT)], AddressErrors { errors: u64::from(LIMIT), refused: 1 });
    lab.sql("TRUNCATE TABLE performance_schema.host_cache").await;
    counted(&mut watcher, AGENT, 0).await;
    lab.login(AGENT, "lb_agent", &token).await.unwrap().close().await;
    watcher.close().await;
    lab.standin.shutdown().await.unwrap();
}

#[tokio::test]
async fn without_performance_schema_the_failures_of_all_are_what_can_be_seen() {
    let lab = Lab::start(Options { performance_schema: false, ..Options::default() }).await;
    let mut watcher = lab.session(AGENT).await;
    let sum = |seen: &ConnectErrors| match seen.counted {
        Counted::Together { aborted, why: Unseen::PerformanceSchemaOff } => aborted,
        _ => panic!("{seen:?}"),
    };
    let before = sum(&errors(&mut watcher).await);
    for _ in 0..3 {
        lab.goes_half_way(CHECKED).await;
    }
    let watcher = tokio::sync::Mutex::new(watcher);
    wait_for("the failures to be counted", PATIENCE, async || {
        let sum = sum(&errors(&mut *watcher.lock().await).await);
        if sum == before + 3 { Ok(()) } else { Err(format!("{sum} after {before}")) }
    })
    .await
    .unwrap();
    let token = lab.standin.token("a", "lb_agent").unwrap();
    lab.login(AGENT, "lb_agent", "no token at all").await.err().unwrap();
    lab.login(AGENT, "lb_agent", &token).await.unwrap().close().await;
    let mut watcher = watcher.into_inner();
    assert_eq!(sum(&errors(&mut watcher).await), before + 3, "refused and accepted logins are none");
    watcher.close().await;
    lab.standin.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_server_that_resolves_no_names_blocks_no_address() {
    let options = Options { settings: vec![("skip_name_resolve".into(), "ON".into())], ..Options::default() };
    let lab = Lab::start(options).await;
    for _ in 0..3 * LIMIT {
        lab.goes_half_way(AGENT).await;
    }
    let mut watcher = lab.session(AGENT).await;
    assert_eq!(errors(&mut watcher).await.counted, Counted::Never);
    watcher.close().await;
    lab.standin.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_missing_right_to_read_the_host_cache_is_reported() {
    let lab = Lab::start(Options::default()).await;
    lab.sql("CREATE USER lb_blind IDENTIFIED VIA pam USING 'rds_iam' REQUIRE SSL").await;
    let token = lab.standin.token("a", "lb_blind").unwrap();
    let mut watcher = lab.login(AGENT, "lb_blind", &token).await.unwrap();
    let seen = errors(&mut watcher).await;
    assert!(matches!(seen.counted, Counted::Together { why: Unseen::NotGranted, .. }), "{seen:?}");
    assert_eq!(watcher.fault(), None, "the connection is as good as before");
    watcher.close().await;
    lab.standin.shutdown().await.unwrap();
}
