//! The real agent at a server whose certificate it does not trust: it finishes no login.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use integration_tests::{
    haproxy::{Backend, Haproxy, HaproxyBinary, HaproxyConfig, Server},
    mysql::Dial,
    process::wait_for,
    scene::{PATIENCE, Scene, Setting},
    standin::{Engine, Options, StandIn},
};

use crate::lab::{AGENT, LIMIT};

/// An agent that did not hold back would have blocked the address long before.
const LOOKING_ON: Duration = Duration::from_secs(15);

const COUNTED: &str = "SELECT coalesce(sum(SUM_CONNECT_ERRORS), 0) FROM performance_schema.host_cache";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_that_trusts_the_wrong_authority_does_not_block_the_proxys_address() {
    let options =
        Options { engine: Engine::Mariadb, replicas: 0, max_connect_errors: LIMIT, ..Options::default() };
    let standin = Arc::new(StandIn::start(options).await.unwrap());
    let server = standin.writer().unwrap().connect();
    // What agent and clients share: on its own, the agent comes from an address that is exempt.
    let entry = Server::new("a", server).words(&format!("source {AGENT}"));
    let shared =
        HaproxyConfig::new().frontend("shared", "shared").backend(Backend::new("shared").server(entry));
    let shared = Haproxy::start(&HaproxyBinary::debian().unwrap(), shared).await.unwrap();
    let setting = Setting::default();
    let mut scene: Scene = Scene::around(Arc::clone(&standin), setting.clone()).await.unwrap();
    scene.agent.stop().await.unwrap();

    let folder = tempfile::tempdir().unwrap();
    let wrong = folder.path().join("another.pem");
    let another = rcgen::generate_simple_self_signed(["another".to_owned()]).unwrap().cert.pem();
    std::fs::write(&wrong, another).unwrap();
    let right = scene.agent.config_for(&standin, &scene.proxy, &setting);
    let right = right
        .replace(&format!("connect: \"{server}\""), &format!("connect: \"{}\"", shared.address("shared")));
    let config = right.replace(&standin.ca_file().display().to_string(), &wrong.display().to_string());
    scene.agent.write_config(&config).unwrap();
    scene.agent.start().await.unwrap();
    let counted = async || standin.value("a", COUNTED).await.unwrap().parse::<u32>().unwrap();
    wait_for("a login that was not finished to be counted", PATIENCE, async || match counted().await {
        0 => Err(scene.agent.log()),
        _ => Ok(()),
    })
    .await
    .unwrap();
    let began = Instant::now();
    while began.elapsed() < LOOKING_ON {
        let counted = counted().await;
        assert!(counted < LIMIT, "{counted} of {LIMIT}\n{}", scene.agent.log());
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let mut client = standin.mysql_login("a", "app").unwrap();
    client.dial = Dial::Tcp(shared.address("shared"));
    client.connect().await.unwrap().quit().await.unwrap();

    // After the configuration is corrected there is no wait.
    scene.agent.write_config(&right).unwrap();
    wait_for("the agent's login", PATIENCE, async || {
        let verdicts = scene.verdicts().await;
        let proved = verdicts["orders_write/a"]["reason"] == "proved";
        if proved { Ok(()) } else { Err(verdicts.to_string()) }
    })
    .await
    .unwrap();
    scene.clear().await.unwrap();
    drop(shared);
    Arc::into_inner(standin).unwrap().shutdown().await.unwrap();
}
