//! The real agent beside the real Envoy: roles, sessions, and the agent's own faults. That it retires
//! sessions as beside HAProxy is tested with the load.
//!
//! `RDS_LB_FREEZE_S` says for how many seconds `long` freezes the agent (6 in `make test`, 120 in
//! `make test-long`).

use std::{
    collections::BTreeSet,
    fs,
    time::{Duration, Instant},
};

use integration_tests::{
    envoy::{Envoy, Host},
    load::{Load, LoadReport, Think, Work},
    process::{Account, Signal, wait_for},
    scene::{PATIENCE, Scene, Setting},
};
use serde_json::Value;

use crate::client::{Client, instances_of_new_sessions};

/// Between two tellings of a session that goes on, in the shipped configuration.
const PERIODIC: Duration = Duration::from_secs(10);

/// A deadline for Envoy and the agent to find each other again, and to ask the databases.
const MEETS: Duration = Duration::from_secs(40);

/// Nothing is closed, and every session is looked for in the access log: all are due soon.
const OBSERVE: &str = "{mode: observe, max_age: 5s}";

/// By DNS sessions would go to `c`: as a writer nothing ever goes there.
async fn set(sessions: &str) -> Scene<Envoy> {
    let setting = Setting { sessions: sessions.into(), dns: Some("c"), ..Setting::default() };
    let scene = Scene::<Envoy>::with(setting).await.unwrap();
    scene.up("orders_read", &["b", "c"]).await.unwrap();
    scene
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failover_moves_new_sessions() {
    let scene = set(OBSERVE).await;
    let write = scene.proxy.address("write");
    assert_eq!(instances_of_new_sessions(&scene.standin, write, 5).await, ["a"]);
    scene.standin.failover("b").await.unwrap();
    scene.up("orders_write", &["b"]).await.unwrap();
    assert_eq!(instances_of_new_sessions(&scene.standin, write, 10).await, ["b"]);
    scene.up("orders_read", &["a", "c"]).await.unwrap();
    scene.clear().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_that_dies_or_forgets_costs_no_session_and_knows_them_again() {
    let mut scene = set(OBSERVE).await;
    let load = clients(&scene).await;
    let mut held = hold(&scene).await;
    knows(&scene, &load, &held, PERIODIC + MEETS).await;
    let steady = Steady::now(&scene, &load).await;

    scene.agent.kill();
    steady.goes_on(&scene, &load, Duration::from_secs(5)).await;
    held.extend(hold(&scene).await);

    // Without any memory.
    fs::remove_dir_all(scene.agent.state_dir()).unwrap();
    fs::create_dir(scene.agent.state_dir()).unwrap();
    own(&scene.agent.state_dir());
    scene.agent.start().await.unwrap();
    let began = Instant::now();
    steady.goes_on(&scene, &load, Duration::from_secs(1)).await;
    knows(&scene, &load, &held, PERIODIC + MEETS).await;
    println!("all sessions known again {:.1?} after the start", began.elapsed());
    scene.routed().await.unwrap();
    steady.goes_on(&scene, &load, Duration::from_secs(1)).await;
    for client in &held {
        assert!(client.works().await);
    }
    end(scene, load).await;
}

mod long {
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_frozen_agent_costs_no_session_and_learns_those_opened_meanwhile() {
        super::freeze_for(integration_tests::length::seconds("RDS_LB_FREEZE_S", 6, 120)).await;
    }
}

async fn freeze_for(frozen: Duration) {
    let mut scene = set(OBSERVE).await;
    let load = clients(&scene).await;
    let mut held = hold(&scene).await;
    knows(&scene, &load, &held, PERIODIC + MEETS).await;
    let steady = Steady::now(&scene, &load).await;

    scene.agent.signal(Signal::STOP).unwrap();
    steady.goes_on(&scene, &load, frozen / 2).await;
    held.extend(hold(&scene).await);
    steady.goes_on(&scene, &load, frozen / 2).await;
    held.extend(hold(&scene).await);
    scene.agent.signal(Signal::CONT).unwrap();
    let thawed = Instant::now();
    knows(&scene, &load, &held, PERIODIC + MEETS).await;
    println!("all sessions known again {:.1?} after it went on", thawed.elapsed());
    steady.goes_on(&scene, &load, Duration::from_secs(2)).await;
    for client in &held {
        assert!(client.works().await);
    }
    end(scene, load).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operators_drain_ends_on_undrain_and_is_sent_again_by_the_next_agent() {
    let mut scene = set(OBSERVE).await;
    let control = scene.agent.control();
    let said = async |words: &[&str]| {
        let control = ["--control", control.to_str().unwrap()];
        scene.agent.command(&[words, &control].concat()).await.unwrap()
    };
    // Refused while the last drain is being forgotten.
    let drain = async || {
        wait_for("a drain", PATIENCE, async || match said(&["drain", "orders_read/b"]).await {
            (0, ..) => Ok(()),
            refused => Err(format!("{refused:?}")),
        })
        .await
        .unwrap();
    };
    let reads = |expected: &'static [&'static str]| shown(&scene, expected);
    reads(&["UNHEALTHY", "HEALTHY", "HEALTHY"]).await;
    drain().await;
    reads(&["UNHEALTHY", "DRAINING", "HEALTHY"]).await;
    assert_eq!(instances_of_new_sessions(&scene.standin, scene.proxy.address("read"), 10).await, ["c"]);
    assert_eq!(said(&["undrain", "orders_read/b"]).await.0, 0);
    reads(&["UNHEALTHY", "HEALTHY", "HEALTHY"]).await;

    drain().await;
    reads(&["UNHEALTHY", "DRAINING", "HEALTHY"]).await;
    scene.agent.stop().await.unwrap();
    // Nothing is kept out any more, the writer neither.
    shown(&scene, &["HEALTHY", "HEALTHY", "HEALTHY"]).await;
    let state_dir = scene.agent.state_dir();
    let own = ["undrain", "--own", "--state-dir", state_dir.to_str().unwrap()];
    let (code, out, _) = scene.agent.command(&own).await.unwrap();
    assert!(code == 0 && out.contains("drained by an operator"), "{code}: {out}");
    scene.agent.start().await.unwrap();
    shown(&scene, &["UNHEALTHY", "DRAINING", "HEALTHY"]).await;
    scene.clear().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_without_a_connected_envoy_is_refused() {
    let mut scene = set(OBSERVE).await;
    scene.proxy.stop().await.unwrap();
    let control = scene.agent.control();
    let drain = ["drain", "orders_read/b", "--control", control.to_str().unwrap()];
    wait_for("the refusal", PATIENCE, async || match scene.agent.command(&drain).await.unwrap() {
        (1, _, said) if said.contains("no Envoy takes endpoints") => Ok(()),
        said => Err(format!("{said:?}")),
    })
    .await
    .unwrap();
    scene.clear().await.unwrap();
}

/// Waits until Envoy shows this of the readers `a`, `b`, `c`.
async fn shown(scene: &Scene<Envoy>, expected: &[&str]) {
    wait_for("the readers' health", PATIENCE, async || {
        let hosts = scene.proxy.hosts("orders_read").await.unwrap();
        let now: Vec<String> = hosts.into_iter().map(|host| host.eds).collect();
        if now == expected { Ok(()) } else { Err(format!("{now:?} for {expected:?}; {}", scene.agent.log())) }
    })
    .await
    .unwrap();
}

/// Clients that work, and some that are idle.
async fn clients(scene: &Scene<Envoy>) -> Load {
    let load = Load::new(scene.writer("app").unwrap(), 1).await.unwrap();
    load.add(Work::Transactions { think: Think::Mixed, retry_begin: false }, 8);
    load.add(Work::Idle, 5);
    load.add_to(&scene.readers("app").unwrap(), Work::Idle, 5);
    load.all_in(PATIENCE).await.unwrap();
    load
}

async fn hold(scene: &Scene<Envoy>) -> Vec<Client> {
    let mut held = Vec::new();
    for listener in ["write", "read"] {
        held.push(Client::login(&scene.standin, scene.proxy.address(listener)).await.unwrap());
    }
    held
}

/// Sessions that ended without their clients' doing.
fn closed(report: &LoadReport) -> u64 {
    let broken = report.broken_at_begin + report.broken_inside + report.broken_at_commit;
    report.retirements() + report.steady_closed + broken
}

/// Waits until the agent has joined every session of the load, and each of these, with the database.
async fn knows(scene: &Scene<Envoy>, load: &Load, held: &[Client], patience: Duration) {
    let clients = load.report().clients;
    let socket = scene.agent.control();
    let client = reqwest::Client::builder().unix_socket(socket).no_proxy().build().unwrap();
    wait_for("the agent to know every session", patience, async || {
        let said = client.get("http://agent/sessions").send().await.map_err(|error| error.to_string())?;
        let rows: Vec<Value> = said.json().await.map_err(|error| error.to_string())?;
        let joined: BTreeSet<Option<i64>> =
            rows.iter().filter(|row| row["join"] == "joined").map(|row| row["pid"].as_i64()).collect();
        let unknown = held.iter().filter(|one| !joined.contains(&Some(one.pid.into()))).count();
        if joined.len() >= clients + held.len() && unknown == 0 {
            Ok(())
        } else {
            Err(format!("{} of {clients}, {unknown} held ones unknown; {:?}", joined.len(), rows.first()))
        }
    })
    .await
    .unwrap_or_else(|error| panic!("{error}\n{}\n{}", scene.agent.log(), scene.proxy.said()));
}

/// What Envoy has counted, to see that no endpoint came or went.
struct Steady {
    closed: u64,
    counts: Vec<u64>,
}

impl Steady {
    async fn now(scene: &Scene<Envoy>, load: &Load) -> Self {
        let mut counts = Vec::new();
        for cluster in ["orders_write", "orders_read"] {
            // Endpoints that came or went, and sessions for want of one that is healthy.
            for counter in
                [format!("{cluster}.membership_change"), format!("{cluster}_dns.upstream_cx_total")]
            {
                counts.push(scene.proxy.stat(&format!("cluster.{counter}")).await.unwrap());
            }
            for host in scene.proxy.hosts(cluster).await.unwrap() {
                // One that was removed and came back would count its sessions from zero.
                counts.push(u64::from(host.total > 0));
            }
        }
        Self { closed: closed(&load.report()), counts }
    }

    async fn still(&self, scene: &Scene<Envoy>, load: &Load) {
        let now = Self::now(scene, load).await;
        assert_eq!((self.closed, &self.counts), (now.closed, &now.counts), "{}", scene.agent.log());
        let up = |hosts: &[Host]| -> Vec<bool> { hosts.iter().map(|host| host.eds == "HEALTHY").collect() };
        assert_eq!(up(&scene.proxy.hosts("orders_write").await.unwrap()), [true, false, false]);
        assert_eq!(up(&scene.proxy.hosts("orders_read").await.unwrap()), [false, true, true]);
    }

    /// New sessions, one after the other, for a while: each is let in, and none ends; and each time
    /// everything is still the same.
    async fn goes_on(&self, scene: &Scene<Envoy>, load: &Load, during: Duration) {
        let before = load.report();
        let began = Instant::now();
        while began.elapsed() < during {
            let reached = instances_of_new_sessions(&scene.standin, scene.proxy.address("write"), 5).await;
            assert_eq!(reached, ["a"]);
            instances_of_new_sessions(&scene.standin, scene.proxy.address("read"), 5).await;
            self.still(scene, load).await;
        }
        let report = load.report();
        assert_eq!(report.failed_logins, before.failed_logins, "{:?}", report.causes);
        assert_eq!(closed(&report), closed(&before), "{:?}\n{}", report.causes, scene.agent.log());
    }
}

/// The agent is an unprivileged user.
fn own(folder: &std::path::Path) {
    if let Some(account) = Account::unprivileged().unwrap() {
        std::os::unix::fs::chown(folder, Some(account.uid), Some(account.gid)).unwrap();
    }
}

async fn end(scene: Scene<Envoy>, load: Load) {
    let report = load.stop().await.unwrap();
    assert_eq!(report.broken_at_commit, 0, "{:?}", report.causes);
    drop(load);
    scene.clear().await.unwrap();
}
