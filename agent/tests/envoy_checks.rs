//! Health checks of Envoys over HTTP: which endpoint is meant, and what fails.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test")]

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use agent_core::{
    Time,
    desired::{Check, EndpointHealth as Health, WhileUnknown},
};
use envoy::{
    eds::Snapshot,
    health::{DEGRADED, HEADER, IMMEDIATE_FAILURE},
};
use rds_lb_agent::{
    api::bounded::{Bounded, Limits},
    clock::Clock,
    proxies::envoy::{
        checks::{Answers, router},
        discovery::Envoys,
        published::{Checked, CheckedEndpoint, Published},
    },
};
use reqwest::Response;
use tokio::{net::TcpListener, task::JoinHandle};

struct Served {
    address: String,
    envoys: Envoys,
    clock: Clock,
    /// When the decider last published, in milliseconds of the clock.
    decided: Arc<AtomicU64>,
    task: JoinHandle<()>,
}

impl Drop for Served {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve() -> Served {
    let envoys = Envoys::default();
    let (clock, decided) = (Clock::start(), Arc::new(AtomicU64::new(0)));
    let at = decided.clone();
    let decided_at = move || Time::since_start(Duration::from_millis(at.load(Ordering::Relaxed)));
    let answers = Answers::new(envoys.published(), envoys.changes(), clock, Arc::new(decided_at));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let task = tokio::spawn(async move {
        axum::serve(Bounded::new(listener, Limits::default(), Arc::default()), router(answers))
            .await
            .unwrap();
    });
    Served { address, envoys, clock, decided, task }
}

impl Served {
    fn publish(&self, health: [Option<Health>; 3]) {
        self.publish_with(health, WhileUnknown::Passes);
    }

    fn publish_with(&self, health: [Option<Health>; 3], while_unknown: WhileUnknown) {
        let endpoint = |(name, health): (&str, Option<Health>)| CheckedEndpoint {
            name: name.into(),
            addresses: vec![format!("10.0.0.{}:5432", name.as_bytes()[0])],
            check: Check { health, while_unknown },
        };
        let endpoints = ["a", "b", "c"].into_iter().zip(health).map(endpoint).collect();
        self.envoys.publish(vec![Published {
            proxy: "envoy:*".into(),
            node: None,
            endpoints: Snapshot::default(),
            undrained: Snapshot::default(),
            checked: Checked::from([("orders_write".into(), endpoints)]),
        }]);
        self.decided.store(
            u64::try_from(self.clock.now().since(Time::AGENT_START).as_millis()).unwrap(),
            Ordering::Relaxed,
        );
    }

    async fn check(&self, cluster: &str, host: &str, header: Option<&str>) -> Response {
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let mut request = client.get(format!("http://{}/envoy/{cluster}", self.address)).header("host", host);
        if let Some(header) = header {
            request = request.header(HEADER, header);
        }
        request.send().await.unwrap()
    }
}

#[tokio::test]
async fn a_check_fails_at_once_for_an_endpoint_that_is_down_and_for_no_other() {
    let served = serve().await;
    served.publish([Some(Health::Healthy), Some(Health::Unhealthy), None]);
    let down = served.check("orders_write", "b", None).await;
    assert_eq!(down.status(), 503);
    assert!(down.headers().contains_key(IMMEDIATE_FAILURE));
    for (cluster, host) in [
        ("orders_write", "a"),
        ("orders_write", "c"),
        ("orders_write", "nobody"),
        ("elsewhere", "b"),
        ("orders_write", "orders_write"),
    ] {
        let answer = served.check(cluster, host, None).await;
        assert_eq!(answer.status(), 200, "{cluster} {host}");
        assert!(!answer.headers().contains_key(IMMEDIATE_FAILURE));
        assert!(!answer.headers().contains_key(DEGRADED));
    }
}

#[tokio::test]
async fn the_endpoint_is_named_by_host_by_header_or_by_address() {
    let served = serve().await;
    served.publish([Some(Health::Healthy), Some(Health::Unhealthy), None]);
    assert_eq!(served.check("orders_write", "b:7879", None).await.status(), 503);
    assert_eq!(served.check("orders_write", "a", Some("b")).await.status(), 503);
    assert_eq!(served.check("orders_write", "a", Some("10.0.0.98:5432")).await.status(), 503);
    assert_eq!(served.check("orders_write", "b", Some("a")).await.status(), 200);
}

/// An Envoy with an address in its configuration that is no instance's: swapped, stale or of another database.
#[tokio::test]
async fn an_address_of_no_instance_does_not_pass_beside_the_writer() {
    let served = serve().await;
    let stray = Some("10.0.0.200:5432");
    served.publish_with([Some(Health::Healthy), Some(Health::Unhealthy), None], WhileUnknown::Waits);
    assert_eq!(served.check("orders_write", "a", stray).await.status(), 503);
    assert_eq!(served.check("orders_write", "a", Some("10.0.0.97:5432")).await.status(), 200);
    // A name that is not known may be a mistake in the configuration, and readers need no proof of a role.
    assert_eq!(served.check("orders_write", "nobody", None).await.status(), 200);
    served.publish([Some(Health::Healthy), Some(Health::Unhealthy), None]);
    assert_eq!(served.check("orders_write", "a", stray).await.status(), 200);
}

#[tokio::test]
async fn a_drain_is_degraded() {
    let served = serve().await;
    served.publish([Some(Health::Draining), Some(Health::Degraded), None]);
    for host in ["a", "b"] {
        let answer = served.check("orders_write", host, None).await;
        assert_eq!(answer.status(), 200);
        assert!(answer.headers().contains_key(DEGRADED));
    }
}

#[tokio::test]
async fn where_one_of_several_is_the_writer_a_check_waits_until_something_is_known() {
    let served = serve().await;
    served.publish_with([None, Some(Health::Unhealthy), None], WhileUnknown::Waits);
    assert_eq!(served.check("orders_write", "b", None).await.status(), 503, "evidence is evidence");
    let becomes_known = async {
        // The check is on its way or waits already: either way it has one answer.
        tokio::task::yield_now().await;
        served.publish_with([Some(Health::Healthy), Some(Health::Unhealthy), None], WhileUnknown::Waits);
    };
    let (answer, ()) = tokio::join!(served.check("orders_write", "a", None), becomes_known);
    assert_eq!(answer.status(), 200);
}

#[tokio::test(start_paused = true)]
async fn what_a_decider_that_hangs_last_said_is_no_evidence() {
    use envoy::health::Source;
    let envoys = Envoys::default();
    let clock = Clock::start();
    let at = clock.now();
    let down = |while_unknown| {
        let check = Check { health: Some(Health::Unhealthy), while_unknown };
        vec![CheckedEndpoint { name: "b".into(), addresses: vec![], check }]
    };
    envoys.publish(vec![Published {
        proxy: "envoy:*".into(),
        node: None,
        endpoints: Snapshot::default(),
        undrained: Snapshot::default(),
        checked: Checked::from([
            ("orders_read".into(), down(WhileUnknown::Passes)),
            ("orders_write".into(), down(WhileUnknown::Waits)),
        ]),
    }]);
    let answers = Answers::new(envoys.published(), envoys.changes(), clock, Arc::new(move || at));
    let status = |cluster| answers.answer(cluster, None, Some("b")).map(|answer| answer.status);
    assert_eq!((status("orders_read"), status("orders_write")), (Some(503), Some(503)));
    tokio::time::advance(Duration::from_secs(5)).await;
    assert_eq!((status("orders_read"), status("orders_write")), (Some(503), None));
    tokio::time::advance(Duration::from_secs(10)).await;
    assert_eq!((status("orders_read"), status("orders_write")), (Some(200), None));
}
