//! The HTTP interface through real sockets: its responses, and its limits for slow or many clients.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test")]

#[path = "schemas/check.rs"]
mod check;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use agent_core::{
    Fault, FaultKind, InstanceId, Phase, ProxyIndex, ServerId, Time,
    health::{
        FleetConfig, Health, HealthRules, Observation, Remembered, Role, RoleFacts, ServerConfig, WantedRole,
    },
};
use rds_lb_agent::{
    api::{
        bounded::{Bounded, Limits},
        http::{Source, router},
    },
    clock::Clock,
    events::{Recent, UnknownNames},
    hand_offs::HandOffs,
    metrics::{Metrics, labels::Question},
    proxies::envoy::discovery::Envoys,
    seen::{Difference, DifferenceKind, ProxyTable, ShownServer, ShownState},
    shared::Topologies,
    snapshot::{ProxySetup, Setup, Snapshot},
    state::pause::Pause,
    status::Status,
};
use reqwest::{Method, StatusCode};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinHandle,
    time::timeout,
};

const DEADLINE: Duration = Duration::from_secs(10);

/// A server on a free port, with the state behind it.
struct Served {
    address: String,
    publish: watch::Sender<Arc<Snapshot>>,
    clock: Clock,
    task: JoinHandle<()>,
}

impl Drop for Served {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(most: usize, patience: Duration) -> Served {
    let clock = Clock::start();
    let (publish, snapshot) = watch::channel(Arc::new(Snapshot::empty(clock.now())));
    let envoys = Envoys::default();
    let metrics = Arc::new(Metrics::default());
    metrics.begin(&"retire", [InstanceId::new("orders", "a")].iter(), &[]);
    let unknown = Arc::new(UnknownNames::new(Question::Http));
    let source = Source {
        snapshot,
        metrics: metrics.clone(),
        clock,
        envoys,
        unknown,
        recent: Recent::default(),
        hand_offs: HandOffs::default(),
        topologies: Topologies::default(),
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let task = tokio::spawn(async move {
        let limits = Limits { connections: most, first: patience, next: patience };
        axum::serve(Bounded::new(listener, limits, metrics), router(source)).await.unwrap();
    });
    Served { address, publish, clock, task }
}

async fn serve_as_usual() -> Served {
    serve(16, DEADLINE).await
}

impl Served {
    async fn ask(&self, method: Method, path: &str) -> (StatusCode, String) {
        let client = reqwest::Client::builder().no_proxy().timeout(DEADLINE).build().unwrap();
        let answer = client.request(method, format!("http://{}{path}", self.address)).send().await.unwrap();
        (answer.status(), answer.text().await.unwrap())
    }

    async fn get(&self, path: &str) -> (StatusCode, String) {
        self.ask(Method::GET, path).await
    }

    async fn json(&self, path: &str) -> Value {
        serde_json::from_str(&self.get(path).await.1).unwrap()
    }

    /// Publishes the snapshot that results from these observations.
    fn publish(&self, observations: impl IntoIterator<Item = Observation>) {
        self.publish_with(&[], observations);
    }

    fn publish_with(&self, remembered: &[Remembered], observations: impl IntoIterator<Item = Observation>) {
        let instances = ["a", "b"].map(|name| (InstanceId::new("orders", name), HealthRules::default()));
        let mut health =
            Health::new(FleetConfig { instances: instances.into(), ..FleetConfig::default() }, remembered);
        for observation in observations {
            health.observe(&observation);
        }
        let now = self.clock.now();
        let snapshot = Snapshot { fleet: Arc::new(health.fleet(now)), ..Snapshot::empty(now) };
        self.publish.send_replace(Arc::new(snapshot));
    }

    fn ago(&self, seconds: f64) -> Time {
        self.clock.now() - Duration::from_secs_f64(seconds)
    }
}

fn proved(instance: &str, at: Time, writer: bool) -> Observation {
    let facts = RoleFacts {
        in_recovery: !writer,
        read_only: false,
        follows_source: false,
        timeline: Some(1),
        lag: None,
        agents: 1,
    };
    Observation { instance: InstanceId::new("orders", instance), at, login: true, result: Ok(facts) }
}

fn failed(instance: &str, at: Time, kind: FaultKind) -> Observation {
    let fault = Fault::new(Phase::Tcp, kind, "made up");
    Observation { instance: InstanceId::new("orders", instance), at, login: true, result: Err(fault) }
}

// === health ===

#[tokio::test]
async fn a_stale_snapshot_takes_no_server_out_of_rotation() {
    let served = serve_as_usual().await;
    let path = "/orders/a/primary";
    let known = [proved("a", served.ago(60.0), true), proved("b", served.ago(60.0), false)];
    let refusals = [2.0, 1.0].map(|ago| failed("a", served.ago(ago), FaultKind::ConnectionRefused));
    served.publish(known.into_iter().chain(refusals));
    assert_eq!(served.get(path).await.0, StatusCode::SERVICE_UNAVAILABLE);
    let old = served.publish.borrow().as_ref().clone();
    let at = old.at - Duration::from_secs(20);
    served.publish.send_replace(Arc::new(Snapshot { at, ..old }));
    assert_eq!(served.get(path).await.0, StatusCode::OK, "a stale snapshot is no evidence");
    assert!(served.json(path).await["age_s"].as_f64().unwrap() >= 20.0);
}

#[tokio::test]
async fn before_the_first_result_every_instance_is_healthy_and_none_of_several_is_the_writer() {
    let served = serve_as_usual().await;
    for round in ["no snapshot", "nothing known"] {
        for (path, expected) in [
            ("/orders/a/primary", StatusCode::SERVICE_UNAVAILABLE),
            ("/orders/b/leader", StatusCode::SERVICE_UNAVAILABLE),
            ("/orders/a/replica", StatusCode::OK),
            ("/orders/b/read-only", StatusCode::OK),
            ("/orders/b/health", StatusCode::OK),
        ] {
            assert_eq!(served.get(path).await.0, expected, "{round}: {path}");
        }
        served.publish([]);
    }
}

#[tokio::test]
async fn health_is_served_at_the_paths_of_patroni() {
    const NO: StatusCode = StatusCode::SERVICE_UNAVAILABLE;
    let served = serve_as_usual().await;
    served.publish([proved("a", served.ago(2.0), true), proved("b", served.ago(2.0), false)]);
    for (path, a, b) in [
        ("primary", StatusCode::OK, NO),
        ("read-write", StatusCode::OK, NO),
        ("leader", StatusCode::OK, NO),
        ("master", StatusCode::OK, NO),
        ("replica", NO, StatusCode::OK),
        ("read-only", StatusCode::OK, StatusCode::OK),
        ("health", StatusCode::OK, StatusCode::OK),
    ] {
        for (instance, expected) in [("a", a), ("b", b)] {
            let path = format!("/orders/{instance}/{path}");
            for method in [Method::GET, Method::HEAD, Method::OPTIONS] {
                let (status, body) = served.ask(method.clone(), &path).await;
                assert_eq!(status, expected, "{method} {path}");
                assert_eq!(body.is_empty(), method != Method::GET, "{method} {path}: {body}");
            }
        }
    }
}

#[tokio::test]
async fn the_body_of_a_health_response_has_the_state_and_its_age() {
    let served = serve_as_usual().await;
    served.publish([proved("a", served.ago(2.0), true), proved("b", served.ago(2.0), false)]);
    let body = served.json("/orders/b/primary").await;
    assert_eq!(body["instance"], "orders/b");
    assert_eq!(
        (&body["state"], &body["reason"], &body["role"]),
        (&"down".into(), &"not_writer".into(), &"reader".into())
    );
    let age = body["last_answer_age_s"].as_f64().unwrap();
    assert!((2.0..12.0).contains(&age), "{age}");
}

#[tokio::test]
async fn only_proof_leads_to_503() {
    let served = serve_as_usual().await;
    let known = |served: &Served| [proved("a", served.ago(60.0), true), proved("b", served.ago(60.0), false)];
    // The agent's own troubles, and silence alone.
    for kind in
        [FaultKind::NoToken, FaultKind::CertificateInvalid, FaultKind::NameNotResolved, FaultKind::TimedOut]
    {
        let faults = (1..10).map(|round| failed("a", served.ago(f64::from(50 - round)), kind));
        served.publish(known(&served).into_iter().chain(faults));
        assert_eq!(served.get("/orders/a/primary").await.0, StatusCode::OK, "{kind:?}");
    }
    let refusals = [2.0, 1.0].map(|ago| failed("a", served.ago(ago), FaultKind::ConnectionRefused));
    served.publish(known(&served).into_iter().chain(refusals));
    assert_eq!(served.get("/orders/a/primary").await.0, StatusCode::SERVICE_UNAVAILABLE);
}

#[tokio::test]
async fn unknown_instances_and_roles_are_404_with_advice() {
    let served = serve_as_usual().await;
    served.publish([]);
    let (status, body) = served.get("/orders/z/primary").await;
    assert_eq!((status, body.contains("did you mean `orders/")), (StatusCode::NOT_FOUND, true), "{body}");
    let (status, body) = served.get("/orders/a/primry").await;
    assert_eq!((status, body.contains("did you mean `primary`?")), (StatusCode::NOT_FOUND, true), "{body}");
    let (_, body) = served.get("/orders/a/quorum").await;
    assert!(body.contains("there are primary, read-write"), "{body}");
    let (_, metrics) = served.get("/metrics").await;
    assert!(metrics.contains("rdslb_unknown_names_total{question=\"http\"} 3"), "{metrics}");
}

#[tokio::test]
async fn the_tcp_port_is_read_only() {
    let served = serve_as_usual().await;
    for path in ["/drain", "/undrain", "/pause", "/resume"] {
        assert_eq!(served.ask(Method::POST, path).await.0, StatusCode::NOT_FOUND, "{path}");
    }
    for path in ["/orders/a/primary", "/state", "/debug/state", "/metrics", "/livez"] {
        for method in [Method::POST, Method::PUT, Method::DELETE] {
            assert_eq!(served.ask(method, path).await.0, StatusCode::METHOD_NOT_ALLOWED, "{path}");
        }
    }
}

// === the agent itself ===

#[tokio::test]
async fn the_agent_is_ready_once_a_login_has_succeeded_or_roles_are_remembered() {
    let served = serve_as_usual().await;
    assert_eq!(served.get("/readyz").await.0, StatusCode::SERVICE_UNAVAILABLE);
    served.publish(["a", "b"].map(|name| failed(name, served.ago(1.0), FaultKind::NoToken)));
    assert_eq!(served.get("/readyz").await.0, StatusCode::SERVICE_UNAVAILABLE);
    served.publish([proved("a", served.ago(1.0), true), failed("b", served.ago(1.0), FaultKind::TimedOut)]);
    assert_eq!(served.get("/readyz").await.0, StatusCode::OK);
    let body = served.json("/readyz").await;
    assert_eq!((&body["by"], &body["without_login"][0]), (&"login".into(), &"orders/b".into()), "{body}");

    let remembered = Remembered {
        database: "orders".into(),
        instance: "a".into(),
        role: Role::Writer,
        timeline: None,
        last_writer: true,
        another_database: false,
    };
    served.publish_with(&[remembered], []);
    assert_eq!(served.get("/readyz").await.0, StatusCode::OK);
    assert_eq!(served.json("/readyz").await["by"], "last_known_roles");
}

#[tokio::test]
async fn the_agent_is_live_while_snapshots_are_fresh() {
    let served = serve_as_usual().await;
    assert_eq!(served.get("/livez").await.0, StatusCode::OK);
    served.publish.send_replace(Arc::new(Snapshot::empty(served.ago(16.0))));
    assert_eq!(served.get("/livez").await.0, StatusCode::SERVICE_UNAVAILABLE);
}

#[tokio::test]
async fn state_is_json_and_metrics_are_prometheus_text() {
    let served = serve_as_usual().await;
    served.publish([proved("a", served.ago(1.0), true)]);
    let state = served.json("/debug/state").await;
    assert_eq!(state["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(state["state"]["fleet"]["instances"]["orders/a"]["role"], "writer");
    let (status, text) = served.get("/metrics").await;
    assert_eq!(status, StatusCode::OK);
    assert!(text.contains("\nrdslb_sessions 0\n") && !text.contains("# EOF"), "{text}");
}

#[tokio::test]
async fn status_conforms_to_its_schema_and_shows_the_state_at_the_proxy() {
    let served = serve_as_usual().await;
    served.publish([proved("a", served.ago(1.0), true), failed("b", served.ago(1.0), FaultKind::TimedOut)]);
    let config = ServerConfig {
        id: ServerId::new(ProxyIndex(0), "orders_write", "a"),
        instance: InstanceId::new("orders", "a"),
        wanted: WantedRole::Writer,
        commandable: true,
    };
    let shown = ShownServer { state: ShownState::Maint, status: "MAINT".into(), weight: 1, sessions: 3 };
    let difference = Difference {
        kind: DifferenceKind::BackendMissing,
        name: "orders_raed".into(),
        nearest: Some("orders_read".into()),
        ports: None,
    };
    let now = served.clock.now();
    let table = ProxyTable {
        at: now,
        version: "2.8.1".into(),
        servers: BTreeMap::from([("orders_write/a".into(), shown)]),
        differences: vec![difference],
    };
    let setup = Setup {
        proxies: vec![ProxySetup {
            name: "/run/admin.sock".into(),
            envoy: None,
            servers: vec![config.clone()],
        }],
        ..Setup::default()
    };
    let fleet = FleetConfig {
        instances: vec![(InstanceId::new("orders", "a"), HealthRules::default())],
        servers: vec![config],
        ..FleetConfig::default()
    };
    let mut health = Health::new(fleet, &[]);
    health.observe(&proved("a", served.ago(1.0), true));
    let snapshot = Snapshot {
        fleet: Arc::new(health.fleet(now)),
        tables: Arc::new(BTreeMap::from([("/run/admin.sock".into(), Arc::new(table))])),
        setup: Arc::new(setup),
        paused: Some(Pause { since: 1_800_000_000, reason: "upgrade".into(), by: Some("alice".into()) }),
        ..Snapshot::empty(now)
    };
    served.publish.send_replace(Arc::new(snapshot));
    let status = served.json("/state").await;
    let schema = serde_json::to_value(schemars::schema_for!(Status)).unwrap();
    assert_eq!(check::violations(&schema, &status), [""; 0], "{status}");
    let shown = &status["servers"][0];
    assert_eq!((&shown["verdict"], &shown["shown"]["state"]), (&"up".into(), &"maint".into()), "{status}");
    assert_eq!(status["paused"]["since"], "2027-01-15T08:00:00Z");
    assert_eq!(status["proxies"][0]["answers"], true);
    assert!(status["differences"][0]["message"].as_str().unwrap().contains("did you mean `orders_read`?"));
}

/// `promtool` is of Debian's package `prometheus`; where it is missing, only the format is compared.
#[tokio::test]
async fn metrics_pass_the_linter_of_prometheus() {
    let served = serve_as_usual().await;
    served.publish([proved("a", served.ago(1.0), true)]);
    let (_, text) = served.get("/metrics").await;
    assert!(text.contains("# TYPE rdslb_logins_total counter\n"), "{text}");
    let promtool = std::process::Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn();
    let Ok(mut promtool) = promtool else { return };
    std::io::Write::write_all(&mut promtool.stdin.take().unwrap(), text.as_bytes()).unwrap();
    let output = promtool.wait_with_output().unwrap();
    let said =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}\n{text}");
}

// === bounds ===

/// Waits until the server closes the connection.
async fn hung_up(connection: &mut TcpStream) {
    let mut rest = Vec::new();
    // A reset is an end as well.
    let _ = timeout(DEADLINE, connection.read_to_end(&mut rest)).await.unwrap();
}

#[tokio::test]
async fn slow_headers_and_idle_connections_are_disconnected() {
    let served = serve(16, Duration::from_millis(200)).await;
    let mut unfinished = TcpStream::connect(&served.address).await.unwrap();
    unfinished.write_all(b"GET /livez HTTP/1.1\r\nhost: a").await.unwrap();
    hung_up(&mut unfinished).await;

    let mut idle = TcpStream::connect(&served.address).await.unwrap();
    idle.write_all(b"GET /livez HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    let mut begin = [0; 15];
    timeout(DEADLINE, idle.read_exact(&mut begin)).await.unwrap().unwrap();
    assert_eq!(&begin, b"HTTP/1.1 200 OK");
    hung_up(&mut idle).await;
}

#[tokio::test]
async fn idle_connections_above_the_limit_keep_no_other_from_being_answered() {
    let served = serve(2, Duration::from_secs(600)).await;
    let mut idle = Vec::new();
    for _ in 0..257 {
        idle.push(TcpStream::connect(&served.address).await.unwrap());
    }
    assert_eq!(served.get("/livez").await.0, StatusCode::OK);
    hung_up(&mut idle[0]).await;
    let (_, metrics) = served.get("/metrics").await;
    let closed =
        metrics.lines().find(|line| line.starts_with("rdslb_http_connections_closed_total")).unwrap();
    assert!(closed.split(' ').nth(1).unwrap().parse::<u32>().unwrap() >= 255, "{closed}");
}

#[tokio::test]
async fn the_connection_that_is_idle_for_the_longest_makes_room_for_another() {
    let served = serve(2, Duration::from_secs(600)).await;
    let ask = async |connection: &mut TcpStream| {
        connection.write_all(b"GET /livez HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
        let mut begin = [0; 1_024];
        let read = timeout(DEADLINE, connection.read(&mut begin)).await.unwrap().unwrap();
        assert!(begin[..read].starts_with(b"HTTP/1.1 200 OK"));
    };
    let mut first = TcpStream::connect(&served.address).await.unwrap();
    ask(&mut first).await;
    let mut second = TcpStream::connect(&served.address).await.unwrap();
    ask(&mut second).await;
    ask(&mut first).await;
    let mut third = TcpStream::connect(&served.address).await.unwrap();
    ask(&mut third).await;
    hung_up(&mut second).await;
    ask(&mut first).await;
}
