//! Sockets and databases that refuse the agent: it says so once, goes on with health checks, and
//! tries again.

use std::{
    collections::BTreeSet,
    os::unix::fs::PermissionsExt,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use integration_tests::{
    load::{Load, Work},
    process::wait_for,
    scene::{PATIENCE, Proxy as _, Scene},
    standin::StopMode,
};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::{RETIRE, clients, end, of, refused_everywhere, retiring, set, watch::Watch};

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

/// How many times the log says that the socket was lost for this reason. Slow answers of a busy
/// machine are another reason, and not counted.
fn lost(scene: &Scene, reason: &str) -> usize {
    let error = |event: &Value| event["error"].as_str().unwrap_or_default().to_lowercase();
    of(scene, LOST).iter().filter(|event| error(event).contains(reason)).count()
}

/// Waits until the socket was lost so many times for this reason.
async fn is_lost(scene: &Scene, reason: &str, times: usize) {
    wait_for(&format!("a log line: {reason}"), PATIENCE, async || match lost(scene, reason) {
        logged if logged == times => Ok(()),
        logged => Err(format!("{logged} lines; {:?}", of(scene, LOST))),
    })
    .await
    .unwrap();
}

/// Waits until the last log line about the socket reports that it answers.
async fn answers(scene: &Scene) {
    wait_for("a log line that the socket answers", PATIENCE, async || {
        let events = scene.agent.events();
        let mut of_socket =
            events.iter().filter(|event| event["message"] == LOST || event["message"] == BACK);
        match of_socket.next_back() {
            Some(last) if last["message"] == BACK => Ok(()),
            last => Err(format!("{last:?}")),
        }
    })
    .await
    .unwrap();
}

/// Verdicts go on: a stopped replica is taken out, and comes back, by agent checks alone. The writer may be up
/// beside them: whether an operator has drained the other reader cannot be read.
async fn health_goes_on(scene: &Scene) {
    let has = |wanted: bool| async move {
        wait_for(&format!("c up: {wanted}"), PATIENCE, async || {
            let up =
                scene.proxy.up("orders_read", &scene.standin).await.map_err(|error| error.to_string())?;
            let right = up.contains(&"b".to_owned()) && up.contains(&"c".to_owned()) == wanted;
            if right { Ok(()) } else { Err(format!("{up:?}; {}", scene.verdicts().await)) }
        })
        .await
        .unwrap();
    };
    scene.standin.stop("c", StopMode::Immediate).await.unwrap();
    has(false).await;
    scene.standin.start_server("c").await.unwrap();
    has(true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_missing_and_a_denied_socket_are_logged_once_and_tried_again() {
    const MISSING: &str = "no such file";
    const DENIED: &str = "denied";
    let mut scene = set(RETIRE, "").await;
    let load = clients(&scene).await;
    scene.agent.stop().await.unwrap();
    let socket = scene.agent.folder().join("proxy.sock");
    scene.agent.write_config(&with_socket(&scene, &socket)).unwrap();
    scene.agent.start().await.unwrap();
    is_lost(&scene, MISSING, 1).await;
    health_goes_on(&scene).await;
    assert_eq!(lost(&scene, MISSING), 1, "{:?}", of(&scene, LOST));
    std::os::unix::fs::symlink(scene.proxy.admin_socket(), &socket).unwrap();
    answers(&scene).await;
    retiring(&scene, &load, 3).await;

    let allow = |mode| {
        let mode = std::fs::Permissions::from_mode(mode);
        std::fs::set_permissions(scene.proxy.admin_socket(), mode).unwrap();
    };
    allow(0o000);
    is_lost(&scene, DENIED, 1).await;
    health_goes_on(&scene).await;
    assert_eq!((lost(&scene, MISSING), lost(&scene, DENIED)), (1, 1), "{:?}", of(&scene, LOST));
    allow(0o600);
    answers(&scene).await;
    retiring(&scene, &load, 3).await;
    end(scene, load).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_proxy_that_answers_nonsense_is_logged_once_and_tried_again() {
    let mut scene = set(RETIRE, "").await;
    let load = clients(&scene).await;
    scene.agent.stop().await.unwrap();
    let before = of(&scene, LOST).len();
    let socket = scene.agent.folder().join("nonsense.sock");
    let listener = tokio::net::UnixListener::bind(&socket).unwrap();
    std::fs::set_permissions(&socket, std::fs::Permissions::from_mode(0o666)).unwrap();
    let asked = Arc::new(AtomicU64::new(0));
    let counted = asked.clone();
    let nonsense = tokio::spawn(async move {
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
    nonsense.abort();
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
async fn a_socket_that_may_not_change_servers_drains_nothing_and_is_logged_once() {
    let mut scene = set("{mode: drain, max_age: 5s}", "").await;
    let load = Load::new(scene.writer("app").unwrap(), 1).await.unwrap();
    load.add_to(&scene.readers("app").unwrap(), Work::Idle, 6);
    load.all_in(PATIENCE).await.unwrap();
    at_level(&mut scene, "operator").await;
    let watch = Watch::begin(scene.proxy.admin_socket());
    let logged = async || {
        let servers: BTreeSet<String> =
            of(&scene, NOT_TAKEN).iter().map(|event| event["server"].to_string()).collect();
        if servers.len() == 2 { Ok(()) } else { Err(format!("{servers:?}")) }
    };
    wait_for("a log line for each replica", PATIENCE, logged).await.unwrap();
    health_goes_on(&scene).await;
    println!("{}", of(&scene, NOT_TAKEN)[0]["error"]);
    assert_eq!(of(&scene, NOT_TAKEN).len(), 2, "{}", scene.agent.log());
    scene.agent.stop().await.unwrap();
    let seen = watch.stop().await;
    assert!(seen.bits.iter().flat_map(|bits| bits.values()).all(|bits| *bits == 0), "{:?}", seen.bits);
    end(scene, load).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_socket_that_may_not_list_sessions_is_logged_once() {
    let mut scene = set(RETIRE, "").await;
    let load = clients(&scene).await;
    at_level(&mut scene, "user").await;
    wait_for("the log line", PATIENCE, async || match of(&scene, NOT_LISTED).len() {
        0 => Err(scene.agent.log()),
        _ => Ok(()),
    })
    .await
    .unwrap();
    let asked = Instant::now();
    health_goes_on(&scene).await;
    health_goes_on(&scene).await;
    answers(&scene).await;
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
async fn a_database_that_refuses_the_agent_is_logged_once_for_each_instance() {
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
