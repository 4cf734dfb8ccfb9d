//! Many logins of the agent's, and next to them what HAProxy's own checks do.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Instant,
};

use agent_core::FaultKind;
use integration_tests::{
    haproxy::{Backend, Haproxy, HaproxyBinary, HaproxyConfig, Server},
    length,
    standin::Options,
};
use tokio::task::JoinSet;

use crate::lab::{AGENT, CHECKED, LIMIT, Lab, counted, errors, of};

/// The number of concurrent logins.
const AT_ONCE: u32 = 8;

const LISTENING: &str = "127.0.0.4";
const RESETTING: &str = "127.0.0.5";
const UNCHECKED: &str = "127.0.0.6";

#[tokio::test(flavor = "multi_thread")]
async fn agent_logins_block_no_address_and_haproxys_own_checks_do() {
    let probes = u32::try_from(length::number("HOST_BLOCK_PROBES", 1_000, 10_000)).unwrap();
    let lab = Arc::new(Lab::start(Options::default()).await);
    let mut watcher = lab.session(AGENT).await;

    // === the agent: full logins, several at once, one cached token ===
    let began = Instant::now();
    let left = Arc::new(AtomicU32::new(probes));
    let mut agents = JoinSet::new();
    for _ in 0..AT_ONCE {
        let (lab, left) = (lab.clone(), left.clone());
        agents.spawn(async move {
            let mut token = lab.standin.token("a", "lb_agent").unwrap();
            let mut done = 0_u32;
            let take = |left: u32| left.checked_sub(1);
            while left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok() {
                if done % 1_000 == 999 {
                    token = lab.standin.token("a", "lb_agent").unwrap();
                }
                lab.login(AGENT, "lb_agent", &token).await.unwrap().close().await;
                done += 1;
            }
            done
        });
    }
    let made: u32 = agents.join_all().await.iter().sum();
    assert_eq!(made, probes);
    let rate = f64::from(made) / began.elapsed().as_secs_f64();
    println!("{made} logins, {AT_ONCE} at once, {rate:.0} a second: none refused");
    counted(&mut watcher, AGENT, 0).await;
    let cache = lab.sql("SELECT COUNT_HANDSHAKE_ERRORS FROM performance_schema.host_cache").await;
    assert_eq!(cache, [[Some("0".to_owned())]], "not one of them counted, not even for a moment");

    // === proxies that check by themselves, and one that leaves that to the agent ===
    let server = lab.standin.server("a").unwrap().connect();
    let backend = |name: &str, source: &str, check: &str| {
        Backend::new(name).server(Server::new("a", server).words(&format!("source {source} {check}")))
    };
    let check = "check inter 50ms";
    let config = HaproxyConfig::new()
        .frontend("closing", "closing")
        .frontend("listening", "listening")
        .frontend("resetting", "resetting")
        .frontend("unchecked", "unchecked")
        .backend(backend("closing", CHECKED, check).line("option tcp-check").line("tcp-check connect linger"))
        .backend(
            backend("listening", LISTENING, check)
                .line("option tcp-check")
                .line("tcp-check expect rstring ."),
        )
        .backend(backend("resetting", RESETTING, check))
        .backend(backend("unchecked", UNCHECKED, ""));
    let haproxy = Haproxy::start(&HaproxyBinary::debian().unwrap(), config).await.unwrap();
    // No login meanwhile, as in a quiet hour: each would reset the count.
    for (source, name) in [(CHECKED, "closing"), (LISTENING, "listening")] {
        counted(&mut watcher, source, LIMIT.into()).await;
        let refused = lab.client(&haproxy, name).await.unwrap_err();
        assert_eq!(refused.code(), Some(1129), "{refused}");
        let state = haproxy.operational_state(name, "a").await.unwrap();
        assert_eq!(state, 2, "the check that has blocked its own proxy says that all is well");
    }
    // A check that is nothing else resets the connection before the server has it, unless
    // HAProxy is slow: that proves no more than an open port, and is no safe guard either.
    lab.client(&haproxy, "resetting").await.unwrap();
    lab.client(&haproxy, "unchecked").await.unwrap();
    let seen = errors(&mut watcher).await;
    assert_eq!((of(&seen, UNCHECKED), of(&seen, AGENT)), (0, 0));

    // === what the agent reports ===
    let token = lab.standin.token("a", "lb_agent").unwrap();
    let fault = lab.login(CHECKED, "lb_agent", &token).await.err().unwrap();
    assert_eq!((fault.kind, fault.code.as_deref()), (FaultKind::HostBlocked, Some("1129")));
    for cure in ["FLUSH HOSTS", "host_cache", "max_connect_errors", "checks"] {
        assert!(fault.message.contains(cure), "{fault}");
    }

    // === and the cure ===
    drop(haproxy);
    lab.sql("FLUSH HOSTS").await;
    lab.login(CHECKED, "lb_agent", &token).await.unwrap().close().await;
    watcher.close().await;
    Arc::into_inner(lab).unwrap().standin.shutdown().await.unwrap();
}
