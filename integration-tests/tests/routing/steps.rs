//! The steps of the README, "Trust it in ten minutes", in their order: look, check a login, observe, route.

use std::sync::Arc;

use integration_tests::{
    haproxy::Haproxy,
    on_each_engine,
    process::wait_for,
    scene::{PATIENCE, Scene, Setting},
    standin::{Engine, Options, StandIn},
};

on_each_engine!(each_step_of_the_readme_works_as_written);

async fn each_step_of_the_readme_works_as_written(engine: Engine) {
    let standin = Options { engine, replicas: 1, ..Options::default() };
    let standin = Arc::new(StandIn::start(standin).await.unwrap());
    let setting = Setting { more: "routing: observe\n".into(), ..Setting::default() };
    let scene = Scene::<Haproxy>::begin(standin, setting.clone()).await.unwrap();
    let run = async |arguments: &[&str]| scene.agent.command(arguments).await.unwrap();
    let succeeds = async |arguments: &[&str], words: &str| {
        let output = run(arguments).await;
        assert!(output.0 == 0 && output.1.contains(words), "{arguments:?}: {output:?}");
    };

    // 1. Look, without any configuration.
    let socket = scene.proxy.admin_socket();
    succeeds(&["observe", "--socket", socket.to_str().unwrap()], "sessions to servers").await;

    // 2. Check one login.
    let config = scene.agent.config_file();
    let config = config.to_str().unwrap();
    succeeds(&["validate", config, "--live"], "HAProxy matches the configuration").await;
    succeeds(&["check", "--config", config], "orders/a: ok writer").await;

    // 3. Let it observe.
    let control = scene.agent.control();
    let control = ["--control", control.to_str().unwrap()];
    wait_for("the verdict that the proxy does not get", PATIENCE, async || {
        let screen = run(&[&["status"], &control[..]].concat()).await;
        let fits = screen.1.contains("routing observe") && screen.1.contains("not the writer");
        if fits { Ok(()) } else { Err(screen.1) }
    })
    .await
    .unwrap();
    assert_eq!(scene.proxy.admin_bits("orders_write", "b").await.unwrap(), 0);
    succeeds(&[&["sessions"], &control[..]].concat(), "mode observe").await;

    // 4. Let it route.
    let acting = Setting { more: String::new(), ..setting };
    scene.agent.write_config(&scene.agent.config_for(&scene.standin, &scene.proxy, &acting)).unwrap();
    scene.up("orders_write", &["a"]).await.unwrap();
    succeeds(&[&["status"], &control[..]].concat(), "routing act").await;
    succeeds(&[&["pause", "--reason", "a look"], &control[..]].concat(), "paused").await;
    succeeds(&[&["status"], &control[..]].concat(), "a look").await;
    succeeds(&[&["resume"], &control[..]].concat(), "resumed").await;
    scene.clear().await.unwrap();
}
