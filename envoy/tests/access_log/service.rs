//! The service, called as Envoy calls it, and as somebody calls it who means no good.

use std::{net::SocketAddr, time::Duration};

use envoy::{
    access_log::{Intake, Kind, Report, service},
    proto::{
        AccessLogServiceClient, Message, Node, StreamAccessLogsMessage,
        stream_access_logs_message::{HttpAccessLogEntries, Identifier, LogEntries},
    },
    serve::{self, serve},
};
use futures_util::{Stream, StreamExt, stream};
use tokio::{net::TcpListener, sync::mpsc, task::JoinHandle, time::timeout};
use tonic::{Code, Status, service::Routes, transport::Channel};

use super::messages;

type Client = AccessLogServiceClient<Channel>;

struct Scene {
    address: SocketAddr,
    reports: mpsc::Receiver<Report>,
    server: JoinHandle<()>,
}

impl Drop for Scene {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Scene {
    async fn new(nodes: Option<&[&str]>) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (sender, reports) = mpsc::channel(1_024);
        let nodes = nodes.map(|nodes| nodes.iter().map(|node| (*node).to_owned()).collect());
        let routes = Routes::new(service(Intake::new(sender, nodes)));
        let server = tokio::spawn(serve(listener, routes, serve::Limits::default()));
        Self { address, reports, server }
    }

    async fn client(&self) -> Client {
        AccessLogServiceClient::connect(format!("http://{}", self.address)).await.unwrap()
    }

    async fn next(&mut self) -> Report {
        timeout(Duration::from_secs(10), self.reports.recv()).await.expect("a report in time").unwrap()
    }
}

/// A first message, of this Envoy.
fn hello(node: &str) -> StreamAccessLogsMessage {
    let node = Node { id: node.into(), ..Node::default() };
    let identifier = Some(Identifier { node: Some(node), log_name: "sessions".into() });
    StreamAccessLogsMessage { identifier, log_entries: None }
}

fn call(
    mut client: Client,
    messages: impl Stream<Item = StreamAccessLogsMessage> + Send + 'static,
) -> JoinHandle<Result<(), Status>> {
    tokio::spawn(async move { client.stream_access_logs(messages).await.map(|_| ()) })
}

async fn refused(call: JoinHandle<Result<(), Status>>) -> Code {
    timeout(Duration::from_secs(20), call).await.expect("an answer in time").unwrap().unwrap_err().code()
}

#[tokio::test]
async fn what_envoy_sends_is_reported_in_order() {
    let mut scene = Scene::new(None).await;
    // One of the two streams of the capture: the other begins with an identifier of its own.
    let decoded: Vec<_> =
        messages().iter().map(|message| StreamAccessLogsMessage::decode(&**message).unwrap()).collect();
    assert!(decoded[0].encoded_len() > 60_000, "the whole extension list");
    let call = call(scene.client().await, stream::iter(decoded));
    assert!(matches!(scene.next().await, Report::Opened { node } if &*node == "envoy-1"));
    let (mut ends, mut all) = (0, 0);
    loop {
        match scene.next().await {
            Report::Said { node, events, skipped, .. } => {
                assert_eq!((&*node, skipped), ("envoy-1", 0));
                all += events.len();
                ends += events.iter().filter(|event| event.kind == Kind::End).count();
            }
            Report::Closed { node, left } => break assert_eq!((&*node, left), ("envoy-1", 0)),
            Report::Opened { .. } => panic!("one stream"),
        }
    }
    assert_eq!((ends, all), (12, super::lines().count()));
    call.await.unwrap().unwrap();
}

#[tokio::test]
async fn an_envoy_that_vanishes_is_reported_too() {
    let mut scene = Scene::new(None).await;
    let call = call(scene.client().await, stream::iter([hello("a")]).chain(stream::pending()));
    assert!(matches!(scene.next().await, Report::Opened { .. }));
    assert!(matches!(scene.next().await, Report::Said { .. }));
    call.abort();
    assert!(matches!(scene.next().await, Report::Closed { node, left: 0 } if &*node == "a"));
}

#[tokio::test]
async fn what_is_no_access_log_of_a_known_envoy_is_refused() {
    let scene = Scene::new(Some(&["a"])).await;
    let client = scene.client().await;
    let one = |message| call(client.clone(), stream::iter([message]));
    assert_eq!(refused(one(hello("b"))).await, Code::PermissionDenied);
    assert_eq!(refused(one(StreamAccessLogsMessage::default())).await, Code::InvalidArgument);
    let mut huge = hello("a");
    huge.identifier.as_mut().unwrap().log_name = "x".repeat(300_000);
    assert_eq!(refused(one(huge)).await, Code::OutOfRange);
    assert_eq!(refused(one(hello(&"a".repeat(1_000)))).await, Code::InvalidArgument);
}

#[tokio::test]
async fn entries_of_http_requests_are_counted_and_passed_over() {
    let mut scene = Scene::new(Some(&["a"])).await;
    let mut message = hello("a");
    message.log_entries = Some(LogEntries::HttpLogs(HttpAccessLogEntries::default()));
    call(scene.client().await, stream::iter([message]));
    assert!(matches!(scene.next().await, Report::Opened { .. }));
    assert!(matches!(scene.next().await, Report::Said { skipped: 1, events, .. } if events.is_empty()));
}

/// A thousand streams that never say whose they are, and as many of one Envoy: another
/// one is heard all the same.
#[tokio::test]
async fn a_thousand_streams_take_nobody_elses_place() {
    let mut scene = Scene::new(None).await;
    let mut hostile = Vec::new();
    for number in 0..40 {
        let client = scene.client().await;
        for _ in 0..25 {
            let silent = number % 2 == 0;
            let said = stream::iter((!silent).then(|| hello("flood")));
            hostile.push(call(client.clone(), said.chain(stream::pending())));
        }
    }
    // Until all that can be open are: the flood has its share, and no more.
    let mut open = 0;
    while open < 128 {
        open += usize::from(matches!(scene.next().await, Report::Opened { node } if &*node == "flood"));
    }
    let good = call(scene.client().await, stream::iter([hello("good")]).chain(stream::pending()));
    loop {
        match scene.next().await {
            Report::Opened { node } if &*node == "good" => break,
            Report::Opened { node } => panic!("one more of {node}"),
            Report::Said { .. } | Report::Closed { .. } => {}
        }
    }
    assert!(!good.is_finished());
    hostile.iter().for_each(JoinHandle::abort);
}

/// A reader that stands still makes Envoys wait; it neither loses what was said nor keeps
/// what it has no room for.
#[tokio::test]
async fn a_slow_reader_makes_envoys_wait() {
    let mut scene = Scene::new(None).await;
    let sent = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let counter = sent.clone();
    let big = std::iter::repeat_with(move || {
        counter.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let mut message = hello("a");
        message.identifier.as_mut().unwrap().log_name = "x".repeat(50_000);
        message
    });
    let call = call(scene.client().await, stream::iter(big));
    // It stops by itself once the room for reports and the windows of the stream are full.
    let mut before = 0;
    let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
    loop {
        tokio::time::sleep(Duration::from_millis(300)).await;
        let now = sent.load(std::sync::atomic::Ordering::Relaxed);
        if now == before && scene.reports.len() == 1_024 {
            break;
        }
        before = now;
        assert!(tokio::time::Instant::now() < deadline, "it takes all it is given: {now}");
    }
    assert!(before < 1_200, "{before} messages for 1,024 places");
    for _ in 0..2_000 {
        scene.next().await;
    }
    call.abort();
}
