//! Faults of everything around the agent, and of the agent: never worse than having none.
//!
//! - `credentials`: those that rotate, and those that run out
//!
//! `RDS_LB_FREEZE_S` (60) says how long faults last, `RDS_LB_CREDENTIAL_S` (60) how long
//! credentials live where they rotate: less for a shorter look than what is promised.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test")]

mod credentials;
#[path = "../support/watch.rs"]
mod watch;

use std::{
    collections::BTreeSet,
    os::unix::fs::PermissionsExt,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use integration_tests::{
    load::{Load, LoadReport, Think, Work},
    on_each_engine,
    process::{Signal, wait_for},
    scene::{PATIENCE, Scene, Setting},
    standin::{Behaviour, Engine, Options, StopMode},
};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use watch::Watch;

/// Transactional clients think for up to two seconds before they look at their socket.
const SETTLES: Duration = Duration::from_secs(3);

fn seconds(variable: &str, default: u64) -> Duration {
    let said = std::env::var(variable).ok().and_then(|text| text.parse().ok());
    Duration::from_secs(said.unwrap_or(default))
}

async fn set(sessions: &str, database: &str) -> Scene {
    set_on(Engine::Postgresql, sessions, database).await
}

async fn set_on(engine: Engine, sessions: &str, database: &str) -> Scene {
    // Sessions are opened for as long as a fault lasts, and nobody closes them meanwhile.
    let standin = Options { engine, max_connections: 1_300, ..Options::default() };
    let setting =
        Setting { standin, sessions: sessions.into(), database: database.into(), ..Setting::default() };
    let scene = Scene::set(setting).await.unwrap();
    scene.up("orders_read", &["b", "c"]).await.unwrap();
    scene
}

/// Clients that work, some that are idle, on writer and replicas.
async fn clients(scene: &Scene) -> Load {
    let load = Load::new(scene.writer("app").unwrap(), 1).await.unwrap();
    load.add(Work::Transactions { think: Think::Mixed, retry_begin: false }, 8);
    load.add(Work::Idle, 5);
    load.add_to(&scene.readers("app").unwrap(), Work::Idle, 5);
    load.all_in(PATIENCE).await.unwrap();
    load
}

/// Sessions that ended without their clients' doing.
fn closed(report: &LoadReport) -> u64 {
    report.ended_unprepared + report.retirements() + report.steady_closed
}

/// Waits until so many more sessions were retired.
async fn retiring(scene: &Scene, load: &Load, more: u64) {
    let before = closed(&load.report());
    wait_for("more sessions to be retired", PATIENCE, async || match closed(&load.report()) - before {
        enough if enough >= more => Ok(()),
        few => Err(format!("{few}; {}", scene.agent.state().await.unwrap()["state"]["sessions"])),
    })
    .await
    .unwrap();
}

/// Looks on for a while: no session is closed, and each new one is let in.
async fn nothing_closed_nothing_refused(scene: &Scene, load: &Load, during: Duration) {
    let before = load.report();
    let began = Instant::now();
    let mut settled = None;
    while began.elapsed() < SETTLES + during {
        load.add(Work::Idle, 1);
        load.add_to(&scene.readers("app").unwrap(), Work::Idle, 1);
        load.all_in(PATIENCE).await.unwrap();
        tokio::time::sleep(Duration::from_millis(500)).await;
        let report = load.report();
        assert_eq!(report.failed_logins, before.failed_logins, "{:?}", report.causes);
        if began.elapsed() >= SETTLES {
            let settled = settled.get_or_insert_with(|| closed(&report));
            assert_eq!(closed(&report), *settled, "{:?}\n{}", report.causes, scene.agent.log());
        }
    }
    let late = closed(&load.report()) - closed(&before);
    println!("{} sessions, {late} closed while it settled, none in {during:?}", load.report().clients);
}

async fn nothing_was_down(watch: Watch) {
    let seen = watch.stop().await;
    for server in ["orders_write/a", "orders_read/b", "orders_read/c"] {
        assert!(!seen.was_down(server), "{server} was down: {:?}", seen.operation);
    }
}

async fn end(scene: Scene, load: Load) {
    let report = load.stop().await.unwrap();
    println!("{:?}", report.causes);
    assert_eq!(report.broken_at_commit, 0, "{:?}", report.causes);
    drop(load);
    scene.clear().await.unwrap();
}

const RETIRE: &str = "{mode: retire, max_age: 6s, login_budget: 20}";

on_each_engine!(
    a_frozen_agent_closes_nothing_and_takes_nothing_away,
    while_iam_refuses_only_the_agent_nothing_is_closed_or_refused,
    while_aws_is_away_nothing_is_closed_or_refused,
    new_sessions_follow_a_failover,
    a_silent_writer_stays_and_a_stopped_one_goes,
);

async fn a_frozen_agent_closes_nothing_and_takes_nothing_away(engine: Engine) {
    let mut scene = set_on(engine, RETIRE, "").await;
    let load = clients(&scene).await;
    retiring(&scene, &load, 5).await;
    let watch = Watch::begin(scene.proxy.admin_socket());
    scene.agent.signal(Signal::STOP).unwrap();
    nothing_closed_nothing_refused(&scene, &load, seconds("RDS_LB_FREEZE_S", 60)).await;
    scene.agent.signal(Signal::CONT).unwrap();
    let thawed = Instant::now();
    retiring(&scene, &load, 5).await;
    println!("retiring again {:.1} s after the thaw", thawed.elapsed().as_secs_f64());
    nothing_was_down(watch).await;
    end(scene, load).await;
}

/// Waits until the agent has noticed that its logins are refused everywhere.
async fn refused_everywhere(scene: &Scene) {
    wait_for("the agent to notice", PATIENCE, async || {
        let state = scene.agent.state().await.unwrap();
        let instances = state["state"]["fleet"]["instances"].as_object().cloned().unwrap_or_default();
        let well: Vec<&String> = instances
            .iter()
            .filter(|(_, view)| view["auth_refused_since"].is_null())
            .map(|(instance, _)| instance)
            .collect();
        if well.is_empty() && !instances.is_empty() { Ok(()) } else { Err(format!("{well:?} accept it")) }
    })
    .await
    .unwrap();
}

async fn while_iam_refuses_only_the_agent_nothing_is_closed_or_refused(engine: Engine) {
    let scene = set_on(engine, RETIRE, "    probe_interval: 2s\n").await;
    let load = clients(&scene).await;
    retiring(&scene, &load, 5).await;
    let watch = Watch::begin(scene.proxy.admin_socket());
    let refused = Instant::now();
    scene.standin.refuse_tokens(None, Some("lb_agent")).unwrap();
    refused_everywhere(&scene).await;
    println!("noticed after {:.1} s (probes every 2 s)", refused.elapsed().as_secs_f64());
    nothing_closed_nothing_refused(&scene, &load, seconds("RDS_LB_FREEZE_S", 60)).await;
    scene.standin.accept_tokens();
    retiring(&scene, &load, 5).await;
    nothing_was_down(watch).await;
    end(scene, load).await;
}

async fn while_aws_is_away_nothing_is_closed_or_refused(engine: Engine) {
    let mut scene = set_on(engine, RETIRE, "").await;
    let load = clients(&scene).await;
    for (behaviour, restarts) in [(Behaviour::Silent, false), (Behaviour::Refusing, true)] {
        retiring(&scene, &load, 5).await;
        let watch = Watch::begin(scene.proxy.admin_socket());
        let before = closed(&load.report());
        let away = Instant::now();
        scene.standin.credentials().behave(behaviour);
        wait_for("the agent to notice", PATIENCE, async || {
            let holds = &scene.agent.state().await.unwrap()["state"]["sessions"]["holds"];
            if holds["instance_unusable"].as_u64() >= Some(1) { Ok(()) } else { Err(holds.to_string()) }
        })
        .await
        .unwrap();
        let meanwhile = closed(&load.report()) - before;
        println!("{behaviour:?}: noticed after {:.1} s, {meanwhile} closed", away.elapsed().as_secs_f64());
        nothing_closed_nothing_refused(&scene, &load, seconds("RDS_LB_FREEZE_S", 60)).await;
        if restarts {
            scene.agent.kill();
            scene.agent.start().await.unwrap();
            nothing_closed_nothing_refused(&scene, &load, seconds("RDS_LB_FREEZE_S", 60) / 3).await;
        }
        scene.standin.credentials().behave(Behaviour::Serving);
        retiring(&scene, &load, 5).await;
        nothing_was_down(watch).await;
    }
    end(scene, load).await;
}

// === failover ===

/// Waits for a verdict's reason in `/state`.
async fn reason(scene: &Scene, server: &str, reason: &str) {
    wait_for(&format!("{server} {reason}"), PATIENCE, async || {
        let verdicts = scene.verdicts().await;
        if verdicts[server]["reason"] == reason { Ok(()) } else { Err(verdicts.to_string()) }
    })
    .await
    .unwrap();
}

/// Waits until clients have written again.
async fn writing(load: &Load) {
    let before = load.report().transactions;
    wait_for("clients to write", PATIENCE, async || match load.report().transactions - before {
        50.. => Ok(()),
        few => Err(format!("{few}; {:?}", load.report().causes)),
    })
    .await
    .unwrap();
}

async fn new_sessions_follow_a_failover(engine: Engine) {
    let scene = set_on(engine, "{mode: observe}", "").await;
    let load = Load::new(scene.writer("app").unwrap(), 1).await.unwrap();
    load.add(Work::Transactions { think: Think::Busy, retry_begin: false }, 8);
    load.all_in(PATIENCE).await.unwrap();
    writing(&load).await;
    for (from, to) in [("a", "b"), ("b", "c")] {
        let began = Instant::now();
        let done = scene.standin.failover(to);
        let routed = async {
            scene.up("orders_write", &[to]).await.unwrap();
            println!("{from} to {to}: routed {:.1} s after it began", began.elapsed().as_secs_f64());
        };
        let (done, ()) = tokio::join!(done, routed);
        done.unwrap();
        writing(&load).await;
        let readers: Vec<&str> = ["a", "b", "c"].into_iter().filter(|server| *server != to).collect();
        scene.up("orders_read", &readers).await.unwrap();
        scene.up("orders_write", &[to]).await.unwrap();
    }
    load.stop().await.unwrap();
    drop(load);
    scene.clear().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_old_writer_that_goes_on_is_left_for_the_promoted_one() {
    let scene = set("{mode: observe}", "").await;
    scene.standin.promote("b").await.unwrap();
    reason(&scene, "orders_write/a", "stale_writer").await;
    scene.up("orders_write", &["b"]).await.unwrap();
    scene.clear().await.unwrap();
}

async fn a_silent_writer_stays_and_a_stopped_one_goes(engine: Engine) {
    let scene = set_on(engine, "{mode: observe}", "").await;
    let watch = Watch::begin(scene.proxy.admin_socket());
    scene.standin.freeze("a").await.unwrap();
    reason(&scene, "orders_write/a", "silent_kept").await;
    // Long after the misses that would count against a reader.
    let misses = async || {
        let state = scene.agent.state().await.unwrap();
        let status = state["state"]["fleet"]["instances"]["orders/a"]["status"].clone();
        if status["silent"].as_u64() >= Some(6) { Ok(()) } else { Err(status.to_string()) }
    };
    wait_for("six misses", PATIENCE, misses).await.unwrap();
    scene.standin.thaw("a").await.unwrap();
    reason(&scene, "orders_write/a", "proved").await;
    nothing_was_down(watch).await;

    scene.standin.stop("a", StopMode::Immediate).await.unwrap();
    scene.up("orders_write", &[]).await.unwrap();
    reason(&scene, "orders_write/a", "refusing").await;
    scene.standin.start_server("a").await.unwrap();
    scene.up("orders_write", &["a"]).await.unwrap();
    scene.clear().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_is_frozen_or_stopped_goes_and_comes_back() {
    let scene = set("{mode: observe}", "").await;
    scene.standin.freeze("c").await.unwrap();
    scene.up("orders_read", &["b"]).await.unwrap();
    scene.standin.thaw("c").await.unwrap();
    scene.up("orders_read", &["b", "c"]).await.unwrap();
    scene.standin.stop("c", StopMode::Immediate).await.unwrap();
    scene.up("orders_read", &["b"]).await.unwrap();
    // With no replica left, the writer reads.
    scene.standin.stop("b", StopMode::Immediate).await.unwrap();
    scene.up("orders_read", &["a"]).await.unwrap();
    scene.standin.start_server("b").await.unwrap();
    scene.standin.start_server("c").await.unwrap();
    scene.up("orders_read", &["b", "c"]).await.unwrap();
    scene.clear().await.unwrap();
}

// === bad input ===

/// The lines that the agent wrote with this message.
fn of(scene: &Scene, message: &str) -> Vec<Value> {
    scene.agent.events().into_iter().filter(|event| event["message"] == message).collect()
}

const LOST: &str = "runtime socket lost: health goes on, sessions and drains are held";
const NOT_LISTED: &str = "sessions of the proxy not listed: health and drains go on, sessions are held";
const NOT_TAKEN: &str = "not drained: the proxy did not apply the drain";
const BACK: &str = "runtime socket answers";

/// The agent's configuration with another runtime socket.
fn with_socket(scene: &Scene, socket: &Path) -> String {
    let config = std::fs::read_to_string(scene.agent.config_file()).unwrap();
    let own = scene.proxy.admin_socket();
    config.replace(own.to_str().unwrap(), socket.to_str().unwrap())
}

/// Waits for so many lines that say that the socket was lost, and so many that it is back.
async fn told(scene: &Scene, lost: usize, back: usize) {
    wait_for("the log to tell it", PATIENCE, async || {
        let said = (of(scene, LOST).len(), of(scene, BACK).len());
        if said == (lost, back) { Ok(()) } else { Err(format!("{said:?}, not {:?}", (lost, back))) }
    })
    .await
    .unwrap();
}

/// Verdicts go on: a stopped replica is taken out, and comes back, by agent checks alone.
async fn health_goes_on(scene: &Scene) {
    scene.standin.stop("c", StopMode::Immediate).await.unwrap();
    scene.up("orders_read", &["b"]).await.unwrap();
    scene.standin.start_server("c").await.unwrap();
    scene.up("orders_read", &["b", "c"]).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_missing_and_a_denied_socket_are_told_once_and_tried_again() {
    let mut scene = set(RETIRE, "").await;
    let load = clients(&scene).await;
    scene.agent.stop().await.unwrap();
    let socket = scene.agent.folder().join("proxy.sock");
    scene.agent.write_config(&with_socket(&scene, &socket)).unwrap();
    let before = (of(&scene, LOST).len(), of(&scene, BACK).len());
    scene.agent.start().await.unwrap();
    told(&scene, before.0 + 1, before.1).await;
    health_goes_on(&scene).await;
    told(&scene, before.0 + 1, before.1).await;
    std::os::unix::fs::symlink(scene.proxy.admin_socket(), &socket).unwrap();
    told(&scene, before.0 + 1, before.1 + 1).await;
    retiring(&scene, &load, 3).await;

    let allow = |mode| {
        let mode = std::fs::Permissions::from_mode(mode);
        std::fs::set_permissions(scene.proxy.admin_socket(), mode).unwrap();
    };
    allow(0o000);
    told(&scene, before.0 + 2, before.1 + 1).await;
    let error = of(&scene, LOST).pop().unwrap()["error"].as_str().unwrap().to_owned();
    println!("{error}");
    assert!(error.to_lowercase().contains("denied"), "{error}");
    health_goes_on(&scene).await;
    told(&scene, before.0 + 2, before.1 + 1).await;
    allow(0o600);
    told(&scene, before.0 + 2, before.1 + 2).await;
    retiring(&scene, &load, 3).await;
    end(scene, load).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_proxy_that_answers_rubbish_is_told_once_and_tried_again() {
    let mut scene = set(RETIRE, "").await;
    let load = clients(&scene).await;
    scene.agent.stop().await.unwrap();
    let before = of(&scene, LOST).len();
    let socket = scene.agent.folder().join("rubbish.sock");
    let listener = tokio::net::UnixListener::bind(&socket).unwrap();
    std::fs::set_permissions(&socket, std::fs::Permissions::from_mode(0o666)).unwrap();
    let asked = Arc::new(AtomicU64::new(0));
    let counted = asked.clone();
    let rubbish = tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            counted.fetch_add(1, Ordering::Relaxed);
            let mut words = [0; 64];
            let _ = stream.read(&mut words).await;
            let _ = stream.write_all(b"HTTP/1.0 400 Bad request\r\n\r\n\xff\xfe> \n\n").await;
        }
    });
    scene.agent.write_config(&with_socket(&scene, &socket)).unwrap();
    scene.agent.start().await.unwrap();
    wait_for("four tries", PATIENCE, async || match asked.load(Ordering::Relaxed) {
        4.. => Ok(()),
        few => Err(few),
    })
    .await
    .unwrap();
    health_goes_on(&scene).await;
    let lost = of(&scene, LOST);
    println!("{} tries: {}", asked.load(Ordering::Relaxed), lost.last().unwrap()["error"]);
    assert_eq!(lost.len(), before + 1, "{lost:?}");
    rubbish.abort();
    std::fs::remove_file(&socket).unwrap();
    std::os::unix::fs::symlink(scene.proxy.admin_socket(), &socket).unwrap();
    retiring(&scene, &load, 3).await;
    end(scene, load).await;
}

/// Starts the agent anew with a runtime socket of this level.
async fn at_level(scene: &mut Scene, level: &str) {
    scene.agent.stop().await.unwrap();
    let file = scene.proxy.config_file();
    let socket = scene.proxy.socket("lower");
    let text = std::fs::read_to_string(&file).unwrap();
    let line = format!("global\n    stats socket {} mode 600 level {level}", socket.display());
    std::fs::write(&file, text.replacen("global", &line, 1)).unwrap();
    scene.proxy.reload().await.unwrap();
    scene.agent.write_config(&with_socket(scene, &socket)).unwrap();
    scene.agent.start().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_socket_that_may_not_change_servers_drains_nothing_and_that_is_told_once() {
    let mut scene = set("{mode: drain, max_age: 5s}", "").await;
    let load = Load::new(scene.writer("app").unwrap(), 1).await.unwrap();
    load.add_to(&scene.readers("app").unwrap(), Work::Idle, 6);
    load.all_in(PATIENCE).await.unwrap();
    at_level(&mut scene, "operator").await;
    let watch = Watch::begin(scene.proxy.admin_socket());
    let told = async || {
        let told: BTreeSet<String> =
            of(&scene, NOT_TAKEN).iter().map(|event| event["server"].to_string()).collect();
        if told.len() == 2 { Ok(()) } else { Err(format!("{told:?}")) }
    };
    wait_for("both replicas to be told of", PATIENCE, told).await.unwrap();
    health_goes_on(&scene).await;
    println!("{}", of(&scene, NOT_TAKEN)[0]["error"]);
    assert_eq!(of(&scene, NOT_TAKEN).len(), 2, "{}", scene.agent.log());
    scene.agent.stop().await.unwrap();
    let seen = watch.stop().await;
    assert!(seen.bits.iter().flat_map(|bits| bits.values()).all(|bits| *bits == 0), "{:?}", seen.bits);
    end(scene, load).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_socket_that_may_not_list_sessions_is_told_once() {
    let mut scene = set(RETIRE, "").await;
    let load = clients(&scene).await;
    let (lost, back) = (of(&scene, LOST).len(), of(&scene, BACK).len());
    at_level(&mut scene, "user").await;
    wait_for("it to be told", PATIENCE, async || match of(&scene, NOT_LISTED).len() {
        0 => Err(scene.agent.log()),
        _ => Ok(()),
    })
    .await
    .unwrap();
    let asked = Instant::now();
    health_goes_on(&scene).await;
    health_goes_on(&scene).await;
    told(&scene, lost, back + 1).await;
    let not_listed = of(&scene, NOT_LISTED);
    println!("{:.0} s: {}", asked.elapsed().as_secs_f64(), not_listed[0]["error"]);
    assert_eq!(not_listed.len(), 1, "{not_listed:?}");
    // Its level is raised, which a new worker has.
    let file = scene.proxy.config_file();
    let raised = std::fs::read_to_string(&file).unwrap().replace("level user", "level admin");
    std::fs::write(&file, raised).unwrap();
    scene.proxy.reload().await.unwrap();
    retiring(&scene, &load, 3).await;
    end(scene, load).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_refuses_the_agent_is_told_once_for_each_instance() {
    let scene = set("{mode: observe}", "    probe_interval: 1s\n").await;
    scene.standin.refuse_tokens(None, Some("lb_agent")).unwrap();
    refused_everywhere(&scene).await;
    let tries = |scene: &Scene| {
        let attempts = scene.standin.journal().attempts();
        attempts.iter().filter(|attempt| attempt.verdict.is_err()).count()
    };
    wait_for("twelve refusals", PATIENCE, async || match tries(&scene) {
        12.. => Ok(()),
        few => Err(few),
    })
    .await
    .unwrap();
    let failed = of(&scene, "login failed");
    println!("{} refusals, {} lines: {}", tries(&scene), failed.len(), failed[0]);
    assert_eq!(failed.len(), 3, "{failed:?}");
    scene.standin.accept_tokens();
    wait_for("each to work again", PATIENCE, async || match of(&scene, "login works").len() {
        3 => Ok(()),
        few => Err(few),
    })
    .await
    .unwrap();
    scene.clear().await.unwrap();
}
