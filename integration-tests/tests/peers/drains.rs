//! Two agents, each asked at the same time to drain one of the last two readers.

use integration_tests::{
    length::number,
    process::wait_for,
    scene::{PATIENCE, Scene, Setting},
    standin::{Engine, Options},
};

use super::{agents_seen, clear, hosts, watch};

mod long {
    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn two_agents_never_drain_the_last_two_servers_together_on_postgresql() {
        run(Engine::Postgresql).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn two_agents_never_drain_the_last_two_servers_together_on_mariadb() {
        run(Engine::Mariadb).await;
    }
}

async fn run(engine: Engine) {
    let rounds = number("RDS_LB_ROUNDS", 10, 200);
    let standin = Options { engine, ..Options::default() };
    let (standin, scenes) = hosts(2, standin, Setting::default()).await;
    for instance in ["b", "c"] {
        agents_seen(&scenes, instance, 2).await;
    }
    for scene in &scenes {
        scene.up("orders_read", &["b", "c"]).await.unwrap();
    }
    let mut drained = [0, 0, 0];
    for round in 0..rounds {
        let (one, two) = tokio::join!(
            command(&scenes[0], &["drain", "orders_read/b"]),
            command(&scenes[1], &["drain", "orders_read/c"])
        );
        let both = [is_drained(&scenes[0], "b").await, is_drained(&scenes[1], "c").await];
        assert_eq!(both, [one, two], "round {round}: an answer is what HAProxy shows");
        assert_ne!(both, [true, true], "round {round}");
        drained[usize::from(one) + 2 * usize::from(two)] += 1;
        for scene in &scenes {
            for server in ["b", "c"] {
                command(scene, &["undrain", &format!("orders_read/{server}")]).await;
            }
        }
        wait_for("no marks left", PATIENCE, async || {
            for scene in &scenes {
                let state = scene.agent.state().await.unwrap();
                for instance in ["orders/b", "orders/c"] {
                    let look = &state["state"]["peers"][instance]["look"];
                    if look["drains"] != 0 || look["own"]["drain"] != false {
                        return Err(look.to_string());
                    }
                }
            }
            Ok(())
        })
        .await
        .unwrap();
    }
    println!(
        "{engine:?}: {rounds} rounds: neither drained {}, the first {}, the second {}",
        drained[0], drained[1], drained[2]
    );
    // The same server may be drained at both hosts: an operator takes it out of service.
    for scene in &scenes {
        wait_for("the drain of one server at both hosts", PATIENCE, async || {
            if command(scene, &["drain", "orders_read/b"]).await { Ok(()) } else { Err("refused".to_owned()) }
        })
        .await
        .unwrap();
    }
    let (code, _, error) = scenes[0]
        .agent
        .command(&["drain", "orders_read/c", "--control", &scenes[0].agent.control().display().to_string()])
        .await
        .unwrap();
    assert_ne!(code, 0, "{error}");
    clear(standin, scenes).await;
}

async fn command(scene: &Scene, words: &[&str]) -> bool {
    let control = scene.agent.control().display().to_string();
    let words: Vec<&str> = words.iter().copied().chain(["--control", &control]).collect();
    scene.agent.command(&words).await.unwrap().0 == 0
}

async fn is_drained(scene: &Scene, server: &str) -> bool {
    scene.proxy.admin_bits("orders_read", server).await.unwrap() == watch::FDRAIN
}
