//! The gRPC service that Envoys stream their access log to.
//!
//! It only receives: what came is reported, in order, to whoever keeps the table. A
//! reader that falls behind makes Envoys wait, and drop what they cannot send; they
//! never make anybody else wait.
//!
//! The peers are not trusted: messages, streams and Envoys are bounded, each peer has
//! its own share, and a stream that does not say at once whose it is goes first.

use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    convert::Infallible,
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use prost::bytes::Buf;
use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, timeout},
};
use tonic::{
    Request, Response, Status, Streaming,
    body::Body,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
    codegen::{self, BoxFuture, Context, Poll, Service, StdError, http},
    server::{ClientStreamingService, Grpc, NamedService},
};

use super::{Event, message::Message};

/// The first message has the description of Envoy, 61 kB in 1.40; the others have what
/// `buffer_size_bytes` (16 kB unless set) gathers.
const MAX_MESSAGE: usize = 256 * 1024;

/// An Envoy says who it is with its first message, at once.
const FIRST_MESSAGE: Duration = Duration::from_secs(10);

/// Streams that have not said yet whose they are. The oldest makes room for another.
const UNNAMED: usize = 64;

/// Streams of one Envoy: one for each worker thread and each access log.
const PER_NODE: usize = 128;

/// Envoys.
const NODES: usize = 32;

/// Streams of all Envoys together.
const NAMED: usize = 512;

/// What is received.
#[derive(Debug)]
pub enum Report {
    /// An Envoy has opened a stream.
    Opened {
        /// Its `node.id`.
        node: Arc<str>,
    },
    /// An Envoy said something.
    Said {
        /// Its `node.id`.
        node: Arc<str>,
        /// When it came.
        at: Instant,
        /// The events, in order.
        events: Vec<Event>,
        /// Entries that are no events.
        skipped: usize,
    },
    /// One of an Envoy's streams has ended.
    Closed {
        /// Its `node.id`.
        node: Arc<str>,
        /// How many it still has.
        left: usize,
    },
}

/// Who may stream, and where to.
#[derive(Debug)]
pub struct Intake {
    reports: mpsc::Sender<Report>,
    /// The only Envoys that are listened to; `None` is any.
    nodes: Option<BTreeSet<String>>,
    streams: Mutex<Streams>,
}

impl Intake {
    /// Reports to `reports`, of `nodes` only if they are named.
    pub fn new(reports: mpsc::Sender<Report>, nodes: Option<BTreeSet<String>>) -> Self {
        Self { reports, nodes, streams: Mutex::default() }
    }

    /// Held for moments only.
    fn streams(&self) -> MutexGuard<'_, Streams> {
        self.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn receive(&self, mut stream: Streaming<Vec<u8>>) -> Result<(), Status> {
        let (number, evicted) = self.streams().enter();
        let first = tokio::select! {
            first = timeout(FIRST_MESSAGE, stream.message()) => first,
            _ = evicted => {
                self.streams().forget(number);
                return Err(Status::resource_exhausted("too many streams that do not say whose they are"));
            }
        };
        self.streams().forget(number);
        let Some(first) = first.map_err(|_| Status::deadline_exceeded("no first message"))?? else {
            return Ok(());
        };
        let first = read(&first)?;
        let node: Arc<str> = first
            .node
            .as_deref()
            .ok_or_else(|| Status::invalid_argument("the first message has no identifier"))?
            .into();
        if self.nodes.as_ref().is_some_and(|nodes| !nodes.contains(&*node)) {
            return Err(Status::permission_denied(format!("node.id `{node}` is not configured")));
        }
        if !self.streams().begin(&node) {
            return Err(Status::resource_exhausted("too many streams"));
        }
        let result = self.listen(&node, first, &mut stream).await;
        let left = self.streams().end(&node);
        self.report(Report::Closed { node, left }).await?;
        result
    }

    async fn listen(
        &self,
        node: &Arc<str>,
        first: Message,
        stream: &mut Streaming<Vec<u8>>,
    ) -> Result<(), Status> {
        self.report(Report::Opened { node: node.clone() }).await?;
        let mut result = self.said(node, first).await;
        while result.is_ok() {
            result = match stream.message().await {
                Ok(Some(message)) => match read(&message) {
                    Ok(message) => self.said(node, message).await,
                    Err(error) => Err(error),
                },
                Ok(None) => break,
                Err(error) => Err(error),
            };
        }
        result
    }

    async fn said(&self, node: &Arc<str>, message: Message) -> Result<(), Status> {
        let skipped = message.skipped.len();
        let (node, at) = (node.clone(), Instant::now());
        self.report(Report::Said { node, at, events: message.events, skipped }).await
    }

    async fn report(&self, report: Report) -> Result<(), Status> {
        self.reports.send(report).await.map_err(|_| Status::unavailable("the agent stops"))
    }
}

fn read(bytes: &[u8]) -> Result<Message, Status> {
    Message::read(bytes).map_err(|error| Status::invalid_argument(error.to_string()))
}

/// The service, to be put on a listener beside others.
pub fn service(intake: Intake) -> Server {
    Server { intake: Arc::new(intake) }
}

/// `envoy.service.accesslog.v3.AccessLogService`.
#[derive(Clone, Debug)]
pub struct Server {
    intake: Arc<Intake>,
}

impl NamedService for Server {
    const NAME: &'static str = "envoy.service.accesslog.v3.AccessLogService";
}

impl<B> Service<http::Request<B>> for Server
where
    B: codegen::Body + Send + 'static,
    B::Error: Into<StdError> + Send + 'static,
{
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        let known = request.uri().path().strip_prefix('/').and_then(|path| path.strip_prefix(Self::NAME));
        if known != Some("/StreamAccessLogs") {
            return Box::pin(async { Ok(Status::unimplemented("no such method").into_http()) });
        }
        let method = StreamAccessLogs(self.intake.clone());
        let mut grpc = Grpc::new(Frames).max_decoding_message_size(MAX_MESSAGE);
        Box::pin(async move { Ok(grpc.client_streaming(method, request).await) })
    }
}

struct StreamAccessLogs(Arc<Intake>);

impl ClientStreamingService<Vec<u8>> for StreamAccessLogs {
    type Response = ();
    type Future = BoxFuture<Response<()>, Status>;

    fn call(&mut self, request: Request<Streaming<Vec<u8>>>) -> Self::Future {
        let intake = self.0.clone();
        Box::pin(async move {
            // A peer that goes away drops this call; its end is to be reported all the same.
            let task = tokio::spawn(async move { intake.receive(request.into_inner()).await });
            task.await.map_err(|error| Status::internal(error.to_string()))?.map(Response::new)
        })
    }
}

/// Messages as they are on the wire; the answer, which never says anything, is empty.
struct Frames;

impl Codec for Frames {
    type Encode = ();
    type Decode = Vec<u8>;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Frames {
    type Item = ();
    type Error = Status;

    fn encode(&mut self, (): (), _: &mut EncodeBuf<'_>) -> Result<(), Status> {
        Ok(())
    }
}

impl Decoder for Frames {
    type Item = Vec<u8>;
    type Error = Status;

    fn decode(&mut self, frame: &mut DecodeBuf<'_>) -> Result<Option<Vec<u8>>, Status> {
        let mut bytes = vec![0; frame.remaining()];
        io::Read::read_exact(&mut frame.reader(), &mut bytes)?;
        Ok(Some(bytes))
    }
}

/// The streams that there are.
#[derive(Debug, Default)]
struct Streams {
    next: u64,
    /// Oldest first. To drop one's sender is to end it.
    unnamed: VecDeque<(u64, oneshot::Sender<()>)>,
    named: HashMap<Arc<str>, usize>,
    count: usize,
}

impl Streams {
    /// One more that has not said whose it is; it is to end when the receiver resolves.
    fn enter(&mut self) -> (u64, oneshot::Receiver<()>) {
        if self.unnamed.len() >= UNNAMED {
            self.unnamed.pop_front();
        }
        let (evict, evicted) = oneshot::channel();
        self.next += 1;
        self.unnamed.push_back((self.next, evict));
        (self.next, evicted)
    }

    fn forget(&mut self, number: u64) {
        self.unnamed.retain(|(other, _)| *other != number);
    }

    /// Whether there is room for one more of this Envoy.
    fn begin(&mut self, node: &Arc<str>) -> bool {
        let own = self.named.get(node).copied().unwrap_or_default();
        if own >= PER_NODE || self.count >= NAMED || (own == 0 && self.named.len() >= NODES) {
            return false;
        }
        self.count += 1;
        self.named.insert(node.clone(), own + 1);
        true
    }

    /// How many this Envoy still has.
    fn end(&mut self, node: &Arc<str>) -> usize {
        self.count = self.count.saturating_sub(1);
        let left = self.named.get(node).map_or(0, |own| own.saturating_sub(1));
        if left == 0 {
            self.named.remove(node);
        } else {
            self.named.insert(node.clone(), left);
        }
        left
    }
}
