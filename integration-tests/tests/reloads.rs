//! What a reload of the agent does to drains, ports, authorities and logging.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test")]

use std::net::SocketAddr;

use integration_tests::{
    process::{free_port, wait_for},
    scene::{PATIENCE, Scene, Setting},
    standin::StopMode,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// `srv_admin_state` of a server that was drained by the API or an agent.
const FDRAIN: u8 = 8;

const DRAIN: &str = "{mode: drain, max_age: 10m}";

fn said(scene: &Scene, message: &str) -> usize {
    scene.agent.events().iter().filter(|event| event["message"] == message).count()
}

async fn reload(scene: &Scene, config: &str) {
    let before = said(scene, "configuration reloaded");
    scene.agent.write_config(config).unwrap();
    wait_for("the reload", PATIENCE, async || {
        if said(scene, "configuration reloaded") > before { Ok(()) } else { Err(scene.agent.log()) }
    })
    .await
    .unwrap();
}

async fn bits(scene: &Scene, bits: u8) {
    wait_for("the admin bits", PATIENCE, async || {
        match scene.proxy.admin_bits("orders_read", "b").await.unwrap() {
            now if now == bits => Ok(()),
            other => Err(format!("{other}: {}", scene.agent.log())),
        }
    })
    .await
    .unwrap();
}

/// Waits until the agent has looked at the proxy with its new configuration.
async fn no_record(scene: &Scene) {
    let records = scene.agent.state_dir().join("drains.json");
    wait_for("no record", PATIENCE, async || {
        if records.exists() { Err(std::fs::read_to_string(&records).unwrap_or_default()) } else { Ok(()) }
    })
    .await
    .unwrap();
}

async fn drain(scene: &Scene) {
    let control = scene.agent.control().display().to_string();
    wait_for("the operator's drain", PATIENCE, async || {
        let drained = scene.agent.command(&["drain", "orders_read/b", "--control", &control]).await.unwrap();
        if drained.0 == 0 { Ok(()) } else { Err(format!("{drained:?}")) }
    })
    .await
    .unwrap();
    bits(scene, FDRAIN).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_by_command_outlasts_a_reload_and_one_by_hand_outlasts_the_agent() {
    let setting = Setting { sessions: DRAIN.into(), ..Setting::default() };
    let mut scene = Scene::set(setting.clone()).await.unwrap();
    scene.up("orders_read", &["b", "c"]).await.unwrap();
    drain(&scene).await;

    // Requested by an operator: kept over any other change.
    let config = scene.agent.config_for(&scene.standin, &scene.proxy, &setting);
    let longer = config.replace("max_age: 10m", "max_age: 11m");
    reload(&scene, &longer).await;
    assert_eq!(scene.proxy.admin_bits("orders_read", "b").await.unwrap(), FDRAIN);
    assert_eq!(said(&scene, "draining: new sessions go elsewhere"), 1, "{}", scene.agent.log());

    // The server leaves the configuration: its drain and the record of it go.
    let without =
        longer.replace("role: reader, servers: {a: a, b: b, c: c}", "role: reader, servers: {a: a, c: c}");
    assert_ne!(without, longer);
    reload(&scene, &without).await;
    bits(&scene, 0).await;
    no_record(&scene).await;

    // Drains from now on are set by hand.
    scene.proxy.cli("set server orders_read/b state drain").await.unwrap();
    reload(&scene, &without.replace("max_age: 11m", "max_age: 12m")).await;
    scene.up("orders_write", &["a"]).await.unwrap();
    scene.agent.stop().await.unwrap();
    assert_eq!(scene.proxy.admin_bits("orders_read", "b").await.unwrap(), FDRAIN);
    scene.clear().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_down_is_not_up_for_a_reload() {
    let setting = Setting { sessions: DRAIN.into(), ..Setting::default() };
    let scene = Scene::set(setting.clone()).await.unwrap();
    scene.up("orders_read", &["b", "c"]).await.unwrap();
    scene.standin.stop("c", StopMode::Immediate).await.unwrap();
    scene.up("orders_read", &["b"]).await.unwrap();
    let verdicts = |scene: &Scene| -> Vec<String> {
        let events = scene.agent.events();
        let of = events.iter().filter(|event| event["server"] == "orders_read/c");
        of.filter(|event| event["message"] == "verdict changed")
            .map(|event| event["state"].to_string())
            .collect()
    };
    let before = verdicts(&scene).len();
    let config = scene.agent.config_for(&scene.standin, &scene.proxy, &setting);
    reload(&scene, &config.replace("max_age: 10m", "max_age: 11m")).await;
    wait_for("a verdict after the reload", PATIENCE, async || {
        if verdicts(&scene).len() > before { Ok(()) } else { Err(scene.agent.log()) }
    })
    .await
    .unwrap();
    assert_eq!(verdicts(&scene)[before..], ["\"down\""], "{}", scene.agent.log());
    scene.clear().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_configuration_can_go_back_to_the_ports_it_came_from() {
    let setting = Setting { sessions: DRAIN.into(), ..Setting::default() };
    let scene = Scene::set(setting.clone()).await.unwrap();
    let config = scene.agent.config_for(&scene.standin, &scene.proxy, &setting);
    let check = scene.agent.agent_check().port();
    let moved = config.replace(&check.to_string(), &free_port().unwrap().to_string());
    assert_ne!(moved, config);
    reload(&scene, &moved).await;
    reload(&scene, &config).await;
    scene.routed().await.unwrap();
    scene.clear().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn authorities_that_are_replaced_are_trusted_from_then_on() {
    let setting = Setting { sessions: DRAIN.into(), ..Setting::default() };
    let scene = Scene::set(setting.clone()).await.unwrap();
    // Next to neither the configuration nor the state.
    let folder = tempfile::tempdir().unwrap();
    let authorities = folder.path().join("ca.pem");
    let put = |pem: &str| {
        let new = folder.path().join("new");
        std::fs::write(&new, pem).unwrap();
        std::fs::rename(&new, &authorities).unwrap();
    };
    let another = rcgen::generate_simple_self_signed(["another".to_owned()]).unwrap().cert.pem();
    put(&another);
    let right = scene.standin.ca_file().display().to_string();
    let config = scene.agent.config_for(&scene.standin, &scene.proxy, &setting);
    let config = config.replace(&right, &authorities.display().to_string());
    reload(&scene, &config).await;
    wait_for("a certificate that is not trusted", PATIENCE, async || {
        // Not in all of the state: a login that works tells its certificate too.
        let state = scene.agent.state().await.unwrap()["state"]["fleet"]["instances"].to_string();
        if state.contains("certificate") { Ok(()) } else { Err(state) }
    })
    .await
    .unwrap();

    // With broken authorities nothing is worse than before.
    put("-----BEGIN CERTIFICATE-----\nnothing\n-----END CERTIFICATE-----\n");
    wait_for("the refusal", PATIENCE, async || {
        let refused = scene.agent.log().contains(&authorities.display().to_string())
            && said(&scene, "CA file cannot be loaded; the authorities loaded from it before stay in use")
                > 0;
        if refused { Ok(()) } else { Err(scene.agent.log()) }
    })
    .await
    .unwrap();

    let reloads = said(&scene, "configuration reloaded");
    put(&std::fs::read_to_string(&right).unwrap());
    wait_for("another reload", PATIENCE, async || {
        if said(&scene, "configuration reloaded") > reloads { Ok(()) } else { Err(scene.agent.log()) }
    })
    .await
    .unwrap();
    wait_for("no complaint", PATIENCE, async || {
        // Not in all of the state: a login that works tells its certificate too.
        let state = scene.agent.state().await.unwrap()["state"]["fleet"]["instances"].to_string();
        if state.contains("certificate") { Err(state) } else { Ok(()) }
    })
    .await
    .unwrap();
    scene.clear().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reload_widens_an_address_and_closes_what_is_no_longer_configured() {
    let setting = Setting { sessions: DRAIN.into(), ..Setting::default() };
    let scene = Scene::set(setting.clone()).await.unwrap();
    let config = scene.agent.config_for(&scene.standin, &scene.proxy, &setting);
    let (check, http) = (scene.agent.agent_check(), scene.agent.http());
    let elsewhere = SocketAddr::from(([127, 0, 0, 2], http.port()));
    assert!(TcpStream::connect(elsewhere).await.is_err(), "not open yet");

    // The agent itself has the port.
    let wide = config.replace(
        &format!("http: \"{http}\""),
        &format!("http: \"0.0.0.0:{}\", allow_remote: true", http.port()),
    );
    assert_ne!(wide, config);
    reload(&scene, &wide).await;
    let mut connection = TcpStream::connect(elsewhere).await.unwrap();
    connection.write_all(b"GET /livez HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    let mut answer = [0; 15];
    connection.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 200 OK");

    // `allow_remote` is taken back: the port and its connections are closed.
    reload(&scene, &config).await;
    assert!(TcpStream::connect(elsewhere).await.is_err(), "closed");
    let mut rest = Vec::new();
    let _ = tokio::time::timeout(PATIENCE, connection.read_to_end(&mut rest)).await.unwrap();
    assert_eq!(scene.agent.get("/livez").await.unwrap().0, 200);

    // The two ports change places.
    let swapped = config
        .replace(&check.port().to_string(), "SWAPPED")
        .replace(&http.port().to_string(), &check.port().to_string())
        .replace("SWAPPED", &http.port().to_string());
    reload(&scene, &swapped).await;
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let livez = client.get(format!("http://{check}/livez")).send().await.unwrap();
    assert_eq!(livez.status(), 200);
    scene.clear().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_address_that_cannot_be_opened_leaves_the_former_ones_open() {
    let setting = Setting { sessions: DRAIN.into(), ..Setting::default() };
    let scene = Scene::set(setting.clone()).await.unwrap();
    let config = scene.agent.config_for(&scene.standin, &scene.proxy, &setting);
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let other = taken.local_addr().unwrap();
    scene.agent.write_config(&config.replace(&scene.agent.http().to_string(), &other.to_string())).unwrap();
    wait_for("the refusal", PATIENCE, async || {
        let refused = said(&scene, "new configuration refused, the old one stays in force");
        if refused > 0 { Ok(()) } else { Err(scene.agent.log()) }
    })
    .await
    .unwrap();
    assert_eq!(scene.agent.get("/livez").await.unwrap().0, 200);
    scene.routed().await.unwrap();
    scene.clear().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reload_applies_the_log_level_and_says_that_the_format_needs_a_restart() {
    let setting = Setting { sessions: DRAIN.into(), ..Setting::default() };
    let scene = Scene::set(setting.clone()).await.unwrap();
    let config = scene.agent.config_for(&scene.standin, &scene.proxy, &setting);
    let level = |level: &str| scene.agent.events().iter().filter(|event| event["level"] == level).count();
    assert_eq!(level("DEBUG"), 0);
    reload(&scene, &format!("{config}log: {{level: debug, format: text}}\n")).await;
    assert_eq!(said(&scene, "`log.format` not changed: it needs a restart of the agent"), 1);
    let cut = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'lb_agent'";
    wait_for("a line of level debug", PATIENCE, async || {
        // The loss of a connection is logged at this level.
        scene.standin.execute_sql("a", cut).await.unwrap();
        if level("DEBUG") > 0 { Ok(()) } else { Err(scene.agent.log()) }
    })
    .await
    .unwrap();
    scene.clear().await.unwrap();
}
