//! Endpoint discovery with real clients: over TCP and a Unix socket, and against peers that
//! are many, slow, silent or hostile.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test")]

use std::{
    collections::HashMap,
    future::Future,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use envoy::{
    eds::{Bounds, Cluster, Endpoint, Event, Health, Peers, Server, Snapshot, Source},
    proto::{
        AggregatedDiscoveryServiceClient, ClusterLoadAssignment, DeltaDiscoveryRequest,
        DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse, EndpointDiscoveryServiceClient, Message,
        Name, Node, Status,
    },
    serve::{Limits, Listener, serve},
};
use futures_util::{StreamExt, stream};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::{mpsc, watch},
    task::{AbortHandle, JoinSet},
};
use tonic::{Code, Streaming, service::RoutesBuilder, transport::Channel};

/// Longer than anything here takes; what does not come within it does not come.
const PATIENCE: Duration = Duration::from_secs(20);

struct Agent {
    publish: watch::Sender<Snapshot>,
    address: SocketAddr,
    peers: Peers,
    events: Arc<Mutex<Vec<Event>>>,
    task: AbortHandle,
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Agent {
    async fn start() -> Self {
        Self::with(Bounds::default(), Limits::default()).await
    }

    async fn with(bounds: Bounds, limits: Limits) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        Self::on(listener, address, bounds, limits)
    }

    fn on(
        listener: impl Into<Listener> + Send + 'static,
        address: SocketAddr,
        bounds: Bounds,
        limits: Limits,
    ) -> Self {
        let (publish, snapshots) = watch::channel(snapshot(1));
        let events = Arc::new(Mutex::new(Vec::new()));
        let reported = events.clone();
        let server =
            Server::new(snapshots, Arc::new(move |event| reported.lock().unwrap().push(event)), bounds);
        let peers = server.peers();
        let mut routes = RoutesBuilder::default();
        server.add_to(&mut routes);
        let task = tokio::spawn(serve(listener, routes.routes(), limits)).abort_handle();
        Self { publish, address, peers, events, task }
    }

    async fn connect(&self) -> Channel {
        Channel::from_shared(format!("http://{}", self.address)).unwrap().connect().await.unwrap()
    }

    /// Streams that were not opened, or have ended.
    fn ended(&self) -> usize {
        let events = self.events.lock().unwrap();
        events.iter().filter(|event| matches!(event, Event::Refused { .. } | Event::Left { .. })).count()
    }

    /// An Envoy that has taken the first it was sent.
    async fn settled(&self) -> Envoy {
        let mut envoy = self.envoy().await;
        let first = envoy.next().await;
        envoy.ack(&first).await;
        envoy
    }

    async fn envoy(&self) -> Envoy {
        Envoy::open(self.connect().await, &["writer"]).await
    }
}

/// The cluster `writer`, with its endpoint on this port, and `reader`.
fn snapshot(port: u16) -> Snapshot {
    let cluster = |name: &str, port: u16| {
        let addresses = vec![SocketAddr::from(([127, 0, 0, 1], port))];
        let endpoint = Endpoint { name: "a".into(), addresses, health: Health::Healthy };
        Cluster { name: name.into(), endpoints: Some(vec![endpoint]) }
    };
    Snapshot::new([cluster("writer", port), cluster("reader", 1)])
}

fn owned(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

fn node() -> Node {
    Node { id: "envoy-1".into(), cluster: "edge".into(), ..Node::default() }
}

fn ask(names: &[&str]) -> DiscoveryRequest {
    DiscoveryRequest {
        node: Some(node()),
        resource_names: owned(names),
        type_url: ClusterLoadAssignment::type_url(),
        ..DiscoveryRequest::default()
    }
}

/// A stream of the classic variant, as an Envoy has it.
struct Envoy {
    say: mpsc::Sender<DiscoveryRequest>,
    hear: Streaming<DiscoveryResponse>,
    names: Vec<&'static str>,
}

/// What a client sends, until the sender is dropped.
fn outbound<T: Send + 'static>(
    receiver: mpsc::Receiver<T>,
) -> impl stream::Stream<Item = T> + Send + 'static {
    stream::unfold(receiver, |mut receiver| async { receiver.recv().await.map(|item| (item, receiver)) })
}

impl Envoy {
    async fn open(channel: Channel, names: &[&'static str]) -> Self {
        let (say, said) = mpsc::channel(16);
        say.send(ask(names)).await.unwrap();
        let mut client = EndpointDiscoveryServiceClient::new(channel);
        let hear = client.stream_endpoints(outbound(said)).await.unwrap().into_inner();
        Self { say, hear, names: names.to_vec() }
    }

    async fn next(&mut self) -> DiscoveryResponse {
        in_time(self.hear.message()).await.unwrap().unwrap()
    }

    async fn ack(&self, response: &DiscoveryResponse) {
        let request = DiscoveryRequest { response_nonce: response.nonce.clone(), ..ask(&self.names) };
        self.say.send(request).await.unwrap();
    }

    async fn nack(&self, response: &DiscoveryResponse, words: &str) {
        let error_detail = Some(Status { code: 3, message: words.into(), details: vec![] });
        let request =
            DiscoveryRequest { response_nonce: response.nonce.clone(), error_detail, ..ask(&self.names) };
        self.say.send(request).await.unwrap();
    }

    /// It is served: a change reaches it.
    async fn sees(&mut self, agent: &Agent, port: u16) {
        let wanted = snapshot(port);
        agent.publish.send_replace(wanted.clone());
        loop {
            let response = self.next().await;
            self.ack(&response).await;
            if response.version_info == wanted.version() {
                return;
            }
        }
    }
}

/// As many streams as one connection may have, which ask and are held.
fn flood(hostile: &mut JoinSet<()>, channel: &Channel) {
    for _ in 0..Limits::default().streams {
        let mut client = EndpointDiscoveryServiceClient::new(channel.clone());
        hostile.spawn(async move {
            let said = stream::iter([ask(&["writer"])]).chain(stream::pending());
            let _held = client.stream_endpoints(said).await;
            std::future::pending::<()>().await;
        });
    }
}

async fn in_time<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(PATIENCE, future).await.unwrap()
}

async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "{what}: not in time");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_change_is_pushed_and_its_answer_is_kept() {
    let agent = Agent::start().await;
    let mut envoy = agent.envoy().await;
    let first = envoy.next().await;
    assert_eq!(first.version_info, snapshot(1).version());
    let message = ClusterLoadAssignment::decode(&*first.resources[0].value).unwrap();
    assert_eq!(message.cluster_name, "writer");
    envoy.ack(&first).await;
    envoy.sees(&agent, 2).await;
    let accepted = Some(snapshot(2).version().to_owned());
    until("taken", || agent.peers.list()[0].accepted == accepted).await;
    let peer = agent.peers.list().remove(0);
    assert_eq!((&*peer.node, &*peer.node_cluster), ("envoy-1", "edge"));
    assert_eq!(peer.asked, ["writer"]);
    assert_eq!(peer.waiting_s, None);
    drop(envoy);
    until("gone", || agent.peers.count() == 0).await;
}

#[tokio::test]
async fn a_rejection_is_an_event_with_envoys_words_and_the_rejected_is_not_sent_again() {
    let agent = Agent::start().await;
    let mut envoy = agent.envoy().await;
    let first = envoy.next().await;
    envoy.nack(&first, "Proto constraint validation failed\n(port)").await;
    until("reported", || agent.peers.list()[0].rejected.is_some()).await;
    let rejected = agent.peers.list().remove(0).rejected.unwrap();
    assert_eq!(rejected.message, "Proto constraint validation failed (port)");
    assert_eq!(rejected.clusters, ["writer"]);
    let events = agent.events.lock().unwrap().clone();
    let reported = events.iter().any(
        |event| matches!(event, Event::Rejected { node, rejected } if node == "envoy-1" && rejected.message.contains("(port)")),
    );
    assert!(reported, "{events:?}");
    // The next thing it gets is something else.
    envoy.sees(&agent, 2).await;
    assert_eq!(agent.peers.list()[0].rejected.as_ref().unwrap().clusters, ["writer"], "kept for people");
}

#[tokio::test]
async fn delta_and_aggregated_streams_are_served_as_well() {
    let agent = Agent::start().await;
    let channel = agent.connect().await;
    let request = DeltaDiscoveryRequest {
        node: Some(node()),
        type_url: ClusterLoadAssignment::type_url(),
        resource_names_subscribe: owned(&["writer"]),
        initial_resource_versions: HashMap::from([("writer".into(), "old".into())]),
        ..DeltaDiscoveryRequest::default()
    };
    let mut streams: Vec<(mpsc::Sender<DeltaDiscoveryRequest>, Streaming<DeltaDiscoveryResponse>)> =
        Vec::new();
    let (say, said) = mpsc::channel(4);
    let mut client = EndpointDiscoveryServiceClient::new(channel.clone());
    streams.push((say, client.delta_endpoints(outbound(said)).await.unwrap().into_inner()));
    let (say, said) = mpsc::channel(4);
    let mut client = AggregatedDiscoveryServiceClient::new(channel.clone());
    streams.push((say, client.delta_aggregated_resources(outbound(said)).await.unwrap().into_inner()));
    for (say, hear) in &mut streams {
        say.send(request.clone()).await.unwrap();
        let response = in_time(hear.message()).await.unwrap().unwrap();
        assert_eq!(response.resources[0].name, "writer");
        assert_eq!(response.resources[0].version, snapshot(1).version_of("writer").unwrap());
    }

    let (say, said) = mpsc::channel(4);
    let mut hear = client.stream_aggregated_resources(outbound(said)).await.unwrap().into_inner();
    // Other types are not answered: an empty answer would take an Envoy's clusters away.
    let type_url = "type.googleapis.com/envoy.config.cluster.v3.Cluster".to_owned();
    say.send(DiscoveryRequest { type_url, ..ask(&[]) }).await.unwrap();
    say.send(ask(&["reader"])).await.unwrap();
    let response = in_time(hear.message()).await.unwrap().unwrap();
    assert_eq!(response.type_url, ClusterLoadAssignment::type_url());
    assert_eq!(agent.peers.list().last().unwrap().ignored, 1);
}

/// The snapshot of each Envoy, by its `node.id`.
#[derive(Clone)]
struct ByNode(HashMap<&'static str, Snapshot>);

impl Source for ByNode {
    fn for_node(&self, node: &str) -> Option<Snapshot> {
        self.0.get(node).cloned()
    }
}

#[tokio::test]
async fn each_envoy_receives_its_own_endpoints_and_an_unknown_one_an_error() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let source = ByNode(HashMap::from([("envoy-1", snapshot(1)), ("envoy-2", snapshot(2))]));
    let (_publish, source) = watch::channel(source);
    let mut routes = RoutesBuilder::default();
    Server::new(source, Arc::new(|_| {}), Bounds::default()).add_to(&mut routes);
    let task = tokio::spawn(serve(listener, routes.routes(), Limits::default()));
    let channel = Channel::from_shared(format!("http://{address}")).unwrap().connect().await.unwrap();
    for (id, version) in
        [("envoy-1", Some(snapshot(1))), ("envoy-2", Some(snapshot(2))), ("envoy-3", None), ("", None)]
    {
        let (say, said) = mpsc::channel(1);
        let node = Some(Node { id: id.into(), ..Node::default() });
        say.send(DiscoveryRequest { node, ..ask(&["writer"]) }).await.unwrap();
        let mut client = EndpointDiscoveryServiceClient::new(channel.clone());
        let mut hear = client.stream_endpoints(outbound(said)).await.unwrap().into_inner();
        match (in_time(hear.message()).await, version) {
            (Ok(Some(response)), Some(wanted)) => assert_eq!(response.version_info, wanted.version()),
            (Err(status), None) => {
                assert_eq!(status.code(), Code::PermissionDenied);
                assert!(status.message().contains(&format!("{id:?}")), "{}", status.message());
            }
            (heard, _) => panic!("{id}: {heard:?}"),
        }
    }
    task.abort();
}

#[tokio::test]
async fn a_unix_socket_serves_too() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("agent.sock");
    let listener = tokio::net::UnixListener::bind(&path).unwrap();
    let nowhere = "127.0.0.1:1".parse().unwrap();
    let agent = Agent::on(listener, nowhere, Bounds::default(), Limits::default());
    let uri = format!("unix://{}", path.display());
    let channel = tonic::transport::Endpoint::new(uri).unwrap().connect().await.unwrap();
    let mut envoy = Envoy::open(channel, &["writer"]).await;
    let first = envoy.next().await;
    envoy.ack(&first).await;
    envoy.sees(&agent, 2).await;
    assert_eq!(agent.peers.list()[0].address, "unix");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_envoys_all_see_a_change_at_once() {
    let agent = Agent::start().await;
    let mut envoys = Vec::new();
    for _ in 0..100 {
        envoys.push(agent.settled().await);
    }
    let wanted = snapshot(2);
    let began = Instant::now();
    agent.publish.send_replace(wanted.clone());
    for envoy in &mut envoys {
        assert_eq!(envoy.next().await.version_info, wanted.version());
    }
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    assert_eq!(agent.peers.count(), 100);
}

#[tokio::test]
async fn a_huge_request_ends_its_stream_and_no_other() {
    let agent = Agent::start().await;
    let mut envoy = agent.settled().await;
    let mut hostile = agent.envoy().await;
    hostile.next().await;
    let huge = DiscoveryRequest { version_info: "x".repeat(1 << 20), ..ask(&["writer"]) };
    hostile.say.send(huge).await.unwrap();
    let status = in_time(hostile.hear.message()).await.unwrap_err();
    assert_eq!(status.code(), Code::OutOfRange, "{status:?}");
    until("ended", || agent.peers.count() == 1).await;
    envoy.sees(&agent, 2).await;
}

#[tokio::test]
async fn a_first_request_with_all_of_envoys_extensions_is_not_huge() {
    let agent = Agent::start().await;
    let channel = agent.connect().await;
    let features = (0..2_000).map(|number| format!("envoy.extensions.filters.network.{number:040}"));
    let node = Some(Node { client_features: features.collect(), ..node() });
    let (say, said) = mpsc::channel(1);
    say.send(DiscoveryRequest { node, ..ask(&["writer"]) }).await.unwrap();
    let mut hear = EndpointDiscoveryServiceClient::new(channel)
        .stream_endpoints(outbound(said))
        .await
        .unwrap()
        .into_inner();
    assert!(in_time(hear.message()).await.unwrap().is_some());
}

#[tokio::test]
async fn wrong_types_and_too_many_names_end_the_stream_with_a_word() {
    let agent = Agent::start().await;
    let channel = agent.connect().await;
    let many: Vec<String> = (0..1_000).map(|number| number.to_string()).collect();
    let long: Vec<String> = (0..100).map(|number| format!("{number:0200}")).collect();
    let wrong = [
        (DiscoveryRequest { type_url: "type.googleapis.com/other".into(), ..ask(&[]) }, "only endpoints"),
        (DiscoveryRequest { resource_names: many, ..ask(&[]) }, "more than 512"),
        (ask(&[Box::leak("x".repeat(300).into_boxed_str())]), "longer than 256"),
        (DiscoveryRequest { resource_names: long, ..ask(&[]) }, "16384 bytes together"),
    ];
    for (request, word) in wrong {
        let (say, said) = mpsc::channel(1);
        say.send(request).await.unwrap();
        let mut client = EndpointDiscoveryServiceClient::new(channel.clone());
        let mut hear = client.stream_endpoints(outbound(said)).await.unwrap().into_inner();
        let status = in_time(hear.message()).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument);
        assert!(status.message().contains(word), "{}", status.message());
    }
    let events = agent.events.lock().unwrap().clone();
    assert_eq!(events.iter().filter(|event| matches!(event, Event::Refused { .. })).count(), 4, "{events:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_streams_of_one_caller_leave_the_others_served() {
    let agent = Agent::start().await;
    let mut envoy = agent.settled().await;
    let channel = agent.connect().await;
    let mut hostile = JoinSet::new();
    for _ in 0..1_000 {
        let channel = channel.clone();
        hostile.spawn(async move {
            let mut envoy = Envoy::open(channel, &["writer"]).await;
            envoy.next().await;
            std::future::pending::<()>().await;
        });
    }
    let most = usize::try_from(Limits::default().streams).unwrap() + 1;
    until("as many as one caller may have", || agent.peers.count() == most).await;
    envoy.sees(&agent, 2).await;
    let mut newcomer = agent.envoy().await;
    newcomer.next().await;
    assert_eq!(agent.peers.count(), most + 1);
}

#[tokio::test]
async fn one_caller_with_more_streams_than_permits_is_refused_until_one_is_free() {
    let bounds = Bounds { streams: 2, ..Bounds::default() };
    let agent = Agent::with(bounds, Limits::default()).await;
    let channel = agent.connect().await;
    let mut first = Envoy::open(channel.clone(), &["writer"]).await;
    first.next().await;
    let mut second = Envoy::open(channel.clone(), &["writer"]).await;
    second.next().await;
    let mut client = EndpointDiscoveryServiceClient::new(channel.clone());
    let refused = client.stream_endpoints(stream::pending()).await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted);
    drop(first);
    until("a place is free", || agent.peers.count() == 1).await;
    Envoy::open(channel, &["writer"]).await.next().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_streams_leaves_newcomers_their_permits() {
    let agent = Agent::start().await;
    let mut envoy = agent.settled().await;
    let mut hostile = JoinSet::new();
    for _ in 0..16 {
        let channel = agent.connect().await;
        flood(&mut hostile, &channel);
    }
    until("more than there are permits", || agent.ended() > 300).await;
    until("no more than there are permits", || agent.peers.count() <= Bounds::default().streams).await;
    // One that was there before, and one that comes now.
    envoy.sees(&agent, 2).await;
    agent.settled().await.sees(&agent, 3).await;
}

/// Nothing can be sent on their streams, so they cannot be ended in order.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn peers_that_do_not_read_keep_no_more_streams_than_permits() {
    let agent = Agent::start().await;
    let mut envoy = agent.settled().await;
    let mut hostile = JoinSet::new();
    for _ in 0..16 {
        let shut = Channel::from_shared(format!("http://{}", agent.address)).unwrap();
        let channel = shut.initial_stream_window_size(0).connect().await.unwrap();
        flood(&mut hostile, &channel);
    }
    until("more than there are permits", || agent.ended() > 300).await;
    until("no more than there are permits", || agent.peers.count() <= Bounds::default().streams + 64).await;
    envoy.sees(&agent, 2).await;
    agent.settled().await.sees(&agent, 3).await;
}

#[tokio::test]
async fn a_flood_of_connections_leaves_newcomers_their_permits() {
    let agent = Agent::with(Bounds::default(), Limits { connections: 20, ..Limits::default() }).await;
    let mut envoy = agent.settled().await;
    let mut hostile = Vec::new();
    for _ in 0..100 {
        hostile.push(agent.settled().await);
    }
    envoy.sees(&agent, 2).await;
    agent.settled().await.sees(&agent, 3).await;
    until("no more than there are permits", || agent.peers.count() <= 20).await;
}

#[tokio::test]
async fn a_peer_that_does_not_read_misses_what_is_in_between_and_nothing_queues_up() {
    let agent = Agent::start().await;
    let mut slow = agent.envoy().await;
    let first = slow.next().await;
    let mut envoy = agent.envoy().await;
    // It has not answered yet: a thousand changes pass it by.
    for port in 2..1_002 {
        agent.publish.send_replace(snapshot(port));
    }
    envoy.sees(&agent, 2_000).await;
    slow.ack(&first).await;
    assert_eq!(slow.next().await.version_info, snapshot(2_000).version(), "the last, and only it");
}

// With threads, so that making the snapshots does not keep the connections from answering pings.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_does_not_read_costs_one_response_and_delays_no_one() {
    let large = |port| {
        let endpoint = |name: usize| Endpoint {
            name: format!("{name:0100}"),
            addresses: vec![SocketAddr::from(([127, 0, 0, 1], port))],
            health: Health::Healthy,
        };
        let all = (0..1_000).map(endpoint).collect();
        Snapshot::new([Cluster { name: "writer".into(), endpoints: Some(all) }])
    };
    let agent = Agent::start().await;
    agent.publish.send_replace(large(1));
    let narrow = Channel::from_shared(format!("http://{}", agent.address)).unwrap();
    let narrow = narrow.initial_stream_window_size(1_024).initial_connection_window_size(65_535);
    let mut deaf = Envoy::open(narrow.connect().await.unwrap(), &["writer"]).await;
    until("sent as far as it goes", || agent.peers.list()[0].waiting_s.is_some()).await;
    for port in 2..50 {
        agent.publish.send_replace(large(port));
    }
    let mut envoy = agent.envoy().await;
    envoy.sees(&agent, 3).await;
    agent.publish.send_replace(large(200));
    let first = deaf.next().await;
    assert_eq!(first.version_info, large(1).version());
    deaf.ack(&first).await;
    assert_eq!(deaf.next().await.version_info, large(200).version());
}

#[tokio::test]
async fn a_peer_that_never_answers_or_never_speaks_loses_its_stream() {
    let bounds = Bounds {
        introduction: Duration::from_millis(100),
        answer: Duration::from_millis(100),
        ..Bounds::default()
    };
    let agent = Agent::with(bounds, Limits::default()).await;
    let mut mute = agent.envoy().await;
    mute.next().await;
    let status = in_time(mute.hear.message()).await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded);
    let mut client = EndpointDiscoveryServiceClient::new(agent.connect().await);
    let mut silent = client.stream_endpoints(stream::pending()).await.unwrap().into_inner();
    let status = in_time(silent.message()).await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded);
    until("both gone", || agent.peers.count() == 0).await;
}

#[tokio::test]
async fn callers_without_a_valid_request_lose_their_permits() {
    let limits = Limits {
        connections: 4,
        silence: Duration::from_millis(300),
        ping: Duration::from_millis(100),
        ..Limits::default()
    };
    let agent = Agent::with(Bounds::default(), limits).await;
    let mut callers = Vec::new();
    for number in 0..8 {
        let mut caller = TcpStream::connect(agent.address).await.unwrap();
        if number % 2 == 0 {
            caller.write_all(b"GET / HTTP/1.1\r\n").await.unwrap();
        }
        callers.push(caller);
    }
    let mut envoy = in_time(agent.settled()).await;
    envoy.sees(&agent, 2).await;
    // They were hung up on, in order or with a reset.
    for caller in &mut callers {
        let _ = in_time(caller.read_to_end(&mut Vec::new())).await;
    }
    // Pings keep one that answers them.
    let quiet = tokio::time::timeout(limits.silence * 4, envoy.hear.message()).await;
    assert!(quiet.is_err(), "it stays connected: {quiet:?}");
    envoy.sees(&agent, 3).await;
}

#[tokio::test]
async fn streams_end_with_the_listener_and_with_the_one_who_publishes() {
    let mut agent = Agent::start().await;
    let mut envoy = agent.envoy().await;
    envoy.next().await;
    agent.task.abort();
    assert!(!matches!(in_time(envoy.hear.message()).await, Ok(Some(_))));
    agent = Agent::start().await;
    let mut envoy = agent.settled().await;
    let (other, _) = watch::channel(Snapshot::default());
    drop(std::mem::replace(&mut agent.publish, other));
    assert!(matches!(in_time(envoy.hear.message()).await, Ok(None)));
}
