//! A source that is lost after a good login is reported at once.

use integration_tests::{
    process::wait_for,
    scene::{PATIENCE, Scene, Setting},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_source_is_a_warning_and_counted_and_its_return_is_logged() {
    let scene =
        Scene::set(Setting { sessions: "{mode: observe, max_age: 5s}".into(), ..Setting::default() }).await;
    let scene = scene.unwrap();
    let logged = |what: &str, source: &str| {
        let mut events = scene.agent.events().into_iter().map(|event| event.to_string());
        let source = format!(r#""source":"{source}""#);
        events.any(|event| event.contains(what) && event.contains("orders/b") && event.contains(&source))
    };
    let both = |what: &str| {
        if logged(what, "role") && logged(what, "sessions") { Ok(()) } else { Err(scene.agent.log()) }
    };
    let kill =
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'rds-lb-agent'";
    wait_for("both sources to be lost", PATIENCE, async || {
        if both("a source is lost").is_err() {
            scene.standin.execute_sql("b", kill).await.unwrap();
        }
        both("a source is lost")
    })
    .await
    .unwrap();
    wait_for("both sources to be back", PATIENCE, async || both("the source is back")).await.unwrap();
    let (_, metrics) = scene.agent.get("/metrics").await.unwrap();
    for source in ["role", "sessions"] {
        let labels = format!(r#"{{database="orders",instance="b",source="{source}"}}"#);
        assert!(metrics.contains(&format!("rdslb_source_losses_total{labels}")), "{metrics}");
    }
    scene.clear().await.unwrap();
}
