//! What callers that mean no good cost an agent that serves Envoys: its memory at rest and while
//! they are there, and how soon an honest caller is answered meanwhile.
//!
//! A real Envoy is connected all the time, and has to go on routing by what the agent says, also
//! while they are there.

use std::{
    future::poll_fn,
    path::Path,
    pin::Pin,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use envoy::proto::{
    AccessLogServiceClient, ClusterLoadAssignment, DiscoveryRequest, EndpointDiscoveryServiceClient, Name,
    Node, StreamAccessLogsMessage, stream_access_logs_message::Identifier,
};
use futures_util::{Stream, StreamExt, stream};
use serde_json::json;
use tokio::{io::AsyncWriteExt, net::UnixStream, sync::oneshot, task::JoinSet, time::timeout};
use tonic::{
    Status,
    body::Body,
    codegen::{Bytes, Service, http},
    transport::{Channel, Endpoint},
};

use super::{Error, Measurement, Report, idle::memory};
use crate::{
    envoy::Envoy,
    scene::{Scene, Setting},
};

/// Connections of hostile callers, with so many streams of each kind on each: a thousand in all.
const CONNECTIONS: usize = 20;
const STREAMS: usize = 25;

/// What one huge message weighs, in bytes.
const HUGE: usize = 8 << 20;

/// What a message weighs that is begun and never ends, and what comes of it: nearly all.
const HALF: usize = 255 << 10;
const COMES: usize = HALF - 16;

/// The streams that such messages come on.
const PATHS: [&str; 2] = [
    "/envoy.service.accesslog.v3.AccessLogService/StreamAccessLogs",
    "/envoy.service.endpoint.v3.EndpointDiscoveryService/StreamEndpoints",
];

/// How long an honest caller waits, and the hostile ones until they are all there.
const PATIENCE: Duration = Duration::from_secs(20);

pub(super) async fn run(quick: bool, report: &mut Report) -> Result<(), Error> {
    let setting = Setting { sessions: "{mode: observe}".into(), ..Setting::default() };
    let scene = Scene::<Envoy>::with(setting).await?;
    let pid = scene.agent.pid().ok_or_else(|| Error::Unexpected("the agent does not run".into()))?;
    let socket = scene.agent.envoy();
    let honest = if quick { 50 } else { 500 };

    let usual = answers(&socket, honest).await?;
    let rest = memory(pid)?.now;
    for (name, what) in [
        ("streams", Hostile::Streams),
        ("halves", Hostile::HalfMessages),
        ("huge", Hostile::HugeMessages),
        ("rubbish", Hostile::Rubbish),
    ] {
        let attack = what.begin(&socket, if quick { 2 } else { 10 }).await?;
        let answered = answers(&socket, honest).await?;
        let held = memory(pid)?;
        let details = json!({"peak_mib": held.peak, "answers_ms": answered, "usual_answers_ms": usual});
        report.tell(
            &Measurement::new(format!("envoy_hostile_{name}_rss"), held.now, "MiB")
                .beside("at rest", rest)
                .details(&details)
                .note(format!("peak {:.1} MiB since the start", held.peak)),
        )?;
        report.tell(
            &Measurement::new(format!("envoy_hostile_{name}_answer_p99"), answered.p99, "ms")
                .beside("without them", usual.p99),
        )?;
        // Sessions go where the agent says while they are there.
        scene.routed().await?;
        drop(attack);
    }
    scene.clear().await.map_err(Error::from)
}

/// What hostile callers do.
#[derive(Clone, Copy, Debug)]
enum Hostile {
    /// They open streams, of access logs and of endpoints, and read nothing.
    Streams,
    /// They begin messages, on as many streams, and never end them; when a stream is ended they begin anew.
    HalfMessages,
    /// They send messages that no Envoy sends.
    HugeMessages,
    /// They speak another protocol, and ask for other types.
    Rubbish,
}

impl Hostile {
    /// Callers that go on until they are dropped; each has begun.
    async fn begin(self, socket: &Path, rounds: usize) -> Result<JoinSet<()>, Error> {
        let mut callers = JoinSet::new();
        for caller in 0..CONNECTIONS {
            let channel = connect(socket).await?;
            match self {
                Hostile::Streams => {
                    for number in 0..STREAMS {
                        let node = format!("hostile-{caller}-{number}");
                        callers.spawn(endpoints(
                            channel.clone(),
                            ask(&node, &ClusterLoadAssignment::type_url()),
                        ));
                        callers.spawn(access_log(channel.clone(), node, 8));
                    }
                }
                Hostile::HalfMessages => {
                    for path in PATHS.into_iter().cycle().take(2 * STREAMS) {
                        callers.spawn(half_messages(channel.clone(), path));
                    }
                }
                Hostile::HugeMessages => {
                    callers.spawn(async move {
                        for round in 0..rounds {
                            access_log(channel.clone(), format!("huge-{round}"), HUGE).await;
                            let huge = "x".repeat(HUGE);
                            endpoints(channel.clone(), ask(&huge, &ClusterLoadAssignment::type_url())).await;
                        }
                    });
                }
                Hostile::Rubbish => {
                    let socket = socket.to_owned();
                    callers.spawn(async move {
                        for _ in 0..rounds * STREAMS {
                            endpoints(channel.clone(), ask("rubbish", "type.googleapis.com/rubbish")).await;
                            if let Ok(mut stream) = UnixStream::connect(&socket).await {
                                let _ = stream.write_all(&[0xff; 4_096]).await;
                            }
                        }
                    });
                }
            }
        }
        // Those that hold their streams have all asked by then; the others are in the midst of it.
        tokio::time::sleep(Duration::from_secs(2)).await;
        Ok(callers)
    }
}

/// One stream of endpoints: asks, and holds what it gets without reading it.
async fn endpoints(channel: Channel, request: DiscoveryRequest) {
    let mut client = EndpointDiscoveryServiceClient::new(channel);
    let wrong = request.type_url != ClusterLoadAssignment::type_url()
        || request.node.as_ref().is_some_and(|node| node.id.len() > 1_000);
    let (_alive, said) = alone(request);
    match client.stream_endpoints(said).await {
        // What is refused ends; its end is waited for.
        Ok(response) if wrong => drop(timeout(PATIENCE, response.into_inner().message()).await),
        Ok(response) => {
            let _held = response;
            std::future::pending::<()>().await;
        }
        Err(_) => {}
    }
}

/// One stream of access logs, whose log has a name of so many bytes.
async fn access_log(channel: Channel, node: String, name: usize) {
    let mut client = AccessLogServiceClient::new(channel);
    let node = Node { id: node, ..Node::default() };
    let identifier = Some(Identifier { node: Some(node), log_name: "x".repeat(name) });
    let (_alive, said) = alone(StreamAccessLogsMessage { identifier, log_entries: None });
    let _ = client.stream_access_logs(said).await;
}

/// One stream after the other, each with the beginning of a message.
async fn half_messages(mut channel: Channel, path: &'static str) {
    loop {
        let request = http::Request::post(path)
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(Body::new(Half(Some(begun()))));
        let Ok(request) = request else { return };
        if poll_fn(|cx| channel.poll_ready(cx)).await.is_err() {
            return;
        }
        if let Ok(mut response) = channel.call(request).await {
            let body = response.body_mut();
            let mut next = async || poll_fn(|cx| http_body::Body::poll_frame(Pin::new(&mut *body), cx)).await;
            while let Some(Ok(_)) = next().await {}
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// The beginning of a message as gRPC has it: a flag, the length, and not all of it.
fn begun() -> Bytes {
    let mut bytes = vec![0];
    bytes.extend(u32::try_from(HALF).unwrap_or_default().to_be_bytes());
    bytes.resize(bytes.len() + COMES, 0);
    bytes.into()
}

/// A body that begins and does not go on.
struct Half(Option<Bytes>);

impl http_body::Body for Half {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, Status>>> {
        match self.0.take() {
            Some(bytes) => Poll::Ready(Some(Ok(http_body::Frame::data(bytes)))),
            None => Poll::Pending,
        }
    }
}

/// One message, and nothing more while the other half is alive. Without it the stream ends: a
/// stream that never did would keep its connection open after everything else of it is gone.
fn alone<T: Send + 'static>(message: T) -> (oneshot::Sender<()>, impl Stream<Item = T> + Send + 'static) {
    let (alive, gone) = oneshot::channel();
    (alive, stream::iter([message]).chain(stream::pending().take_until(gone)))
}

/// How soon an honest caller is answered, in milliseconds.
#[derive(Clone, Copy, Debug, serde::Serialize)]
struct Answers {
    p50: f64,
    p99: f64,
}

/// Opens a connection and a stream, asks for the writer's endpoints, and has them: so often.
async fn answers(socket: &Path, times: usize) -> Result<Answers, Error> {
    let mut took = Vec::with_capacity(times);
    for _ in 0..times {
        let began = Instant::now();
        let answer = async {
            let mut client = EndpointDiscoveryServiceClient::new(connect(socket).await?);
            let mut request = ask("honest", &ClusterLoadAssignment::type_url());
            request.resource_names = vec!["orders_write".into()];
            let (_alive, asked) = alone(request);
            let refused = |status: Status| Error::Unexpected(format!("refused: {status}"));
            let mut response = client.stream_endpoints(asked).await.map_err(refused)?.into_inner();
            match response.message().await.map_err(refused)? {
                Some(response) if response.resources.len() == 1 => Ok(()),
                other => Err(Error::Unexpected(format!("an honest caller received {other:?}"))),
            }
        };
        let late = |_| Error::Unexpected(format!("an honest caller is not answered in {PATIENCE:?}"));
        timeout(PATIENCE, answer).await.map_err(late)??;
        took.push(began.elapsed().as_secs_f64() * 1e3);
    }
    took.sort_unstable_by(f64::total_cmp);
    let at = |percent: usize| took.get(took.len().saturating_sub(1) * percent / 100).copied().unwrap_or(0.0);
    Ok(Answers { p50: at(50), p99: at(99) })
}

async fn connect(socket: &Path) -> Result<Channel, Error> {
    let unreachable =
        |error: tonic::transport::Error| Error::Unexpected(format!("{}: {error}", socket.display()));
    let endpoint = Endpoint::from_shared(format!("unix://{}", socket.display()))
        .map_err(|error| Error::Unexpected(error.to_string()))?;
    endpoint.connect().await.map_err(unreachable)
}

fn ask(node: &str, type_url: &str) -> DiscoveryRequest {
    DiscoveryRequest {
        node: Some(Node { id: node.into(), ..Node::default() }),
        resource_names: vec!["orders_write".into(), "orders_read".into()],
        type_url: type_url.into(),
        ..DiscoveryRequest::default()
    }
}
