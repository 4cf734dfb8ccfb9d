//! The service, called as Envoy calls it, and as somebody calls it who means no good.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use envoy::{
    access_log::{Bounds, Gate, Intake, Kind, Origin, Report, service},
    proto::{
        AccessLogServiceClient, Message, Node, StreamAccessLogsMessage,
        stream_access_logs_message::{HttpAccessLogEntries, Identifier, LogEntries},
    },
    serve::{self, serve},
};
use futures_util::{Stream, StreamExt, stream};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::mpsc,
    task::JoinHandle,
    time::timeout,
};
use tonic::{Code, Status, service::Routes, transport::Channel};

use super::messages;

type Client = AccessLogServiceClient<Channel>;

struct Scene {
    address: SocketAddr,
    reports: mpsc::Receiver<Report>,
    refused: Arc<Mutex<Vec<String>>>,
    server: JoinHandle<()>,
}

/// Lets these in, or all, and keeps why others were refused.
struct Door {
    nodes: Option<Vec<String>>,
    refused: Arc<Mutex<Vec<String>>>,
}

impl Gate for Door {
    fn knows(&self, node: &str) -> bool {
        self.nodes.as_ref().is_none_or(|nodes| nodes.iter().any(|known| known == node))
    }

    fn refused(&self, _: &str, why: &str) {
        self.refused.lock().unwrap().push(why.to_owned());
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Scene {
    async fn new(nodes: Option<&[&str]>) -> Self {
        Self::with(nodes, Bounds::default(), serve::Limits::default()).await
    }

    async fn with(nodes: Option<&[&str]>, bounds: Bounds, limits: serve::Limits) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (sender, reports) = mpsc::channel(1_024);
        let refused = Arc::default();
        let nodes = nodes.map(|nodes| nodes.iter().map(|node| (*node).to_owned()).collect());
        let door = Door { nodes, refused: Arc::clone(&refused) };
        let routes = Routes::new(service(Intake::new(sender, door, bounds)));
        let server = tokio::spawn(serve(listener, routes, limits));
        Self { address, reports, refused, server }
    }

    /// Until this Envoy has opened a stream.
    async fn opened(&mut self, wanted: &str) {
        while !matches!(self.next().await, Report::Opened { origin, .. } if is(&origin, wanted)) {}
    }

    async fn client(&self) -> Client {
        AccessLogServiceClient::connect(format!("http://{}", self.address)).await.unwrap()
    }

    async fn next(&mut self) -> Report {
        timeout(Duration::from_secs(10), self.reports.recv()).await.expect("a report in time").unwrap()
    }
}

fn is(origin: &Origin, node: &str) -> bool {
    *origin.node == *node
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
    assert!(matches!(scene.next().await, Report::Opened { origin, .. } if is(&origin, "envoy-1")));
    let (mut ends, mut all) = (0, 0);
    loop {
        match scene.next().await {
            Report::Said { origin, events, skipped, .. } => {
                assert_eq!((&*origin.node, skipped), ("envoy-1", 0));
                all += events.len();
                ends += events.iter().filter(|event| event.kind == Kind::End).count();
            }
            Report::Closed { origin, left, .. } => break assert_eq!((&*origin.node, left), ("envoy-1", 0)),
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
    assert!(matches!(scene.next().await, Report::Closed { origin, left: 0, .. } if is(&origin, "a")));
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
    // Each is reported with its reason: without it they all look like missing sessions.
    let told = scene.refused.lock().unwrap().clone();
    let words = ["\"b\" is configured", "no identifier", "too large", "not a message"];
    assert_eq!(told.len(), words.len(), "{told:?}");
    for (told, word) in told.iter().zip(words) {
        assert!(told.contains(word), "{told}");
    }
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

/// A thousand streams that never say whose they are, or all have one name: another is heard
/// all the same, and stays.
#[tokio::test]
async fn a_thousand_streams_take_nobody_elses_place() {
    let mut scene = Scene::new(None).await;
    let first = call(scene.client().await, stream::iter([hello("first")]).chain(stream::pending()));
    scene.opened("first").await;
    let mut hostile = Vec::new();
    for number in 0..40 {
        let client = scene.client().await;
        for _ in 0..25 {
            let silent = number % 2 == 0;
            let said = stream::iter((!silent).then(|| hello("flood")));
            hostile.push(call(client.clone(), said.chain(stream::pending())));
        }
    }
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    while scene.refused.lock().unwrap().is_empty() {
        assert!(tokio::time::Instant::now() < deadline, "there are too many");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let good = call(scene.client().await, stream::iter([hello("good")]).chain(stream::pending()));
    scene.opened("good").await;
    assert!(!good.is_finished() && !first.is_finished());
    hostile.iter().for_each(JoinHandle::abort);
}

/// A thousand connections with a stream each, and a name each: more than there are permits.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_connections_with_a_name_each_take_nobody_elses_place() {
    let mut scene = Scene::new(None).await;
    let first = call(scene.client().await, stream::iter([hello("first")]).chain(stream::pending()));
    scene.opened("first").await;
    let mut hostile = Vec::new();
    for number in 0..1_000 {
        let name = format!("flood-{number}");
        let said = stream::iter([hello(&name)]).chain(stream::pending());
        hostile.push(call(scene.client().await, said));
        scene.opened(&name).await;
    }
    let good = call(scene.client().await, stream::iter([hello("good")]).chain(stream::pending()));
    scene.opened("good").await;
    assert!(!good.is_finished() && !first.is_finished());
    hostile.iter().for_each(JoinHandle::abort);
}

/// A stream of gRPC as it is on the wire: a message of this length, of which so much comes.
async fn half_a_message(address: SocketAddr, length: usize, comes: usize) -> TcpStream {
    // The frames of HTTP/2: length, type, flags, stream.
    let frame = |kind: u8, flags: u8, stream: u8, body: &[u8]| {
        let mut frame = u32::try_from(body.len()).unwrap().to_be_bytes()[1..].to_vec();
        frame.extend([kind, flags, 0, 0, 0, stream]);
        frame.extend(body);
        frame
    };
    let mut headers = Vec::new();
    for (name, value) in [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", "/envoy.service.accesslog.v3.AccessLogService/StreamAccessLogs"),
        (":authority", "agent"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    ] {
        // Literals without indexing, and without Huffman's code.
        headers.push(0);
        for text in [name, value] {
            headers.push(u8::try_from(text.len()).unwrap());
            headers.extend(text.as_bytes());
        }
    }
    let mut message = vec![0];
    message.extend(u32::try_from(length).unwrap().to_be_bytes());
    message.extend(vec![0; comes]);
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    bytes.extend(frame(4, 0, 0, &[]));
    bytes.extend(frame(1, 4, 1, &headers));
    bytes.extend(message.chunks(16_384).flat_map(|part| frame(0, 0, 1, part)));
    let mut peer = TcpStream::connect(address).await.unwrap();
    peer.write_all(&bytes).await.unwrap();
    peer
}

/// Messages that are begun and never end: they have to within their time, and are few at once.
#[tokio::test]
async fn half_sent_messages_end_and_leave_room_for_whole_ones() {
    let limits =
        serve::Limits { message: Duration::from_millis(500), messages: 300_000, ..serve::Limits::default() };
    let mut scene = Scene::with(None, Bounds::default(), limits).await;
    let mut halves = Vec::new();
    for _ in 0..20 {
        halves.push(half_a_message(scene.address, 60_000, 30_000).await);
    }
    // One that is as large, of another connection, and whole.
    let mut large = hello("good");
    large.identifier.as_mut().unwrap().log_name = "x".repeat(50_000);
    let good = call(scene.client().await, stream::iter([large]).chain(stream::pending()));
    scene.opened("good").await;
    let ended = |word: &str| scene.refused.lock().unwrap().iter().filter(|why| why.contains(word)).count();
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    while ended("others need it") + ended("not complete in time") < 20 {
        assert!(tokio::time::Instant::now() < deadline, "{:?}", scene.refused.lock().unwrap());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(ended("others need it") >= 15 && ended("not complete in time") >= 1);
    assert!(!good.is_finished(), "between two messages there is time");
}

#[tokio::test]
async fn a_connection_without_a_stream_is_closed_and_one_that_has_one_is_not() {
    let limits = serve::Limits {
        idle: Duration::from_millis(300),
        ping: Duration::from_millis(50),
        ..serve::Limits::default()
    };
    let mut scene = Scene::with(None, Bounds::default(), limits).await;
    let good = call(scene.client().await, stream::iter([hello("good")]).chain(stream::pending()));
    scene.opened("good").await;
    // It greets, answers whatever it is pinged with, and asks for nothing.
    let mut idle = TcpStream::connect(scene.address).await.unwrap();
    idle.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
    idle.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).await.unwrap();
    let closed = async {
        let mut header = [0; 9];
        while idle.read_exact(&mut header).await.is_ok() {
            let length = u32::from_be_bytes([0, header[0], header[1], header[2]]);
            let mut body = vec![0; usize::try_from(length).unwrap()];
            if idle.read_exact(&mut body).await.is_err() {
                break;
            }
            if header[3] == 6 {
                header[4] = 1;
                let _ = idle.write_all(&[&header[..], &body].concat()).await;
            }
        }
    };
    timeout(Duration::from_secs(20), closed).await.expect("it is closed in time");
    assert!(!good.is_finished());
}

/// A reader that stands still makes Envoys wait; it neither loses what was said nor keeps
/// what it has no room for.
#[tokio::test]
async fn a_slow_reader_makes_envoys_wait() {
    let mut scene = Scene::new(None).await;
    let sent = Arc::new(std::sync::atomic::AtomicUsize::new(0));
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
    assert!(before < 1_200, "{before} messages for 1,024 permits");
    for _ in 0..2_000 {
        scene.next().await;
    }
    call.abort();
}
