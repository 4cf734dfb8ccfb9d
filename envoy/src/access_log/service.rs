//! The gRPC service that receives the access logs of Envoys.
//!
//! It reports what it receives, in order. If the receiver of the reports falls behind, Envoys wait, and drop
//! entries that they cannot send.
//!
//! Peers are not trusted: messages and streams are limited, each peer has its share of them, and a stream
//! that does not identify itself at once is ended.

use std::{
    collections::HashMap,
    convert::Infallible,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use prost::bytes::{Buf, Bytes};
use tokio::{
    sync::mpsc,
    time::{Instant, timeout},
};
use tonic::{
    Code, Request, Response, Status, Streaming,
    body::Body,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
    codegen::{self, BoxFuture, Context, Poll, Service, StdError, http},
    server::{ClientStreamingService, Grpc, NamedService},
};

use super::{Event, Origin, message::Message};
use crate::{caller::Caller, permits::Permits};

#[derive(Copy, Clone, Debug)]
pub struct Bounds {
    /// Open streams, shared fairly among the callers. An Envoy has one for each worker thread and each
    /// access log; it opens one that was refused or ended again with the next entry.
    pub streams: usize,
    /// The length of a message, in bytes. The first one has the description of Envoy, 61 kB in 1.40; the
    /// others have up to `buffer_size_bytes`, 16 kB by default.
    pub message: usize,
    /// The time limit for the first message, which identifies the Envoy.
    pub introduction: Duration,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { streams: 512, message: 256 << 10, introduction: Duration::from_secs(10) }
    }
}

#[derive(Debug)]
pub enum Report {
    /// An Envoy has opened a stream.
    Opened { origin: Origin, at: Instant },
    Said {
        origin: Origin,
        /// When it was received.
        at: Instant,
        events: Vec<Event>,
        /// Entries without an event.
        skipped: usize,
    },
    /// An Envoy's stream has ended.
    Closed {
        origin: Origin,
        at: Instant,
        /// The number of its other streams.
        left: usize,
    },
}

/// Decides which Envoys are accepted.
pub trait Gate: Send + Sync + 'static {
    /// Whether the Envoy with this `node.id` is configured.
    fn knows(&self, node: &str) -> bool;

    /// A stream was not opened, or was ended because of the peer. Called within a stream, so it must not
    /// block.
    fn refused(&self, address: &str, why: &str);
}

pub struct Intake {
    reports: mpsc::Sender<Report>,
    gate: Box<dyn Gate>,
    bounds: Bounds,
    permits: Permits,
    /// The number of each Envoy's streams.
    streams: Mutex<HashMap<Origin, usize>>,
}

impl Intake {
    pub fn new(reports: mpsc::Sender<Report>, gate: impl Gate, bounds: Bounds) -> Self {
        let (gate, permits) = (Box::new(gate), Permits::new(bounds.streams));
        Self { reports, gate, bounds, permits, streams: Mutex::default() }
    }

    async fn receive(&self, caller: &Caller, mut stream: Streaming<Bytes>) -> Result<(), Status> {
        let permit = self.permits.take(caller, 1).ok_or_else(no_permit)?;
        let mut open = None;
        let result = tokio::select! {
            result = self.listen(caller, &mut stream, &mut open) => result,
            () = permit.revoked() => Err(no_permit()),
        };
        if let Some(origin) = open {
            let (at, left) = (Instant::now(), self.end(&origin));
            self.report(Report::Closed { origin, at, left }).await?;
        }
        result
    }

    /// Sets `open` to the origin of the stream once it is known.
    async fn listen(
        &self,
        caller: &Caller,
        stream: &mut Streaming<Bytes>,
        open: &mut Option<Origin>,
    ) -> Result<(), Status> {
        let first = timeout(self.bounds.introduction, stream.message()).await;
        let Some(first) = first.map_err(|_| Status::deadline_exceeded("no first message"))?? else {
            return Ok(());
        };
        let anonymous = || Status::invalid_argument("the first message has no identifier");
        let node = read(&first)?.node.ok_or_else(anonymous)?.into();
        let origin = Origin { node, peer: caller.peer.clone() };
        self.known(&origin)?;
        self.begin(&origin);
        *open = Some(origin.clone());
        self.report(Report::Opened { origin: origin.clone(), at: Instant::now() }).await?;
        let mut message = first;
        loop {
            self.said(&origin, message).await?;
            let Some(next) = stream.message().await? else { return Ok(()) };
            // The configuration may have changed.
            self.known(&origin)?;
            message = next;
        }
    }

    fn known(&self, Origin { node, .. }: &Origin) -> Result<(), Status> {
        let refused =
            || Status::permission_denied(format!("no Envoy with the node id {node:?} is configured"));
        if self.gate.knows(node) { Ok(()) } else { Err(refused()) }
    }

    /// Waits for room in the channel before decoding: the encoded message is limited in size.
    async fn said(&self, origin: &Origin, message: Bytes) -> Result<(), Status> {
        let at = Instant::now();
        let room = self.reports.reserve().await.map_err(|_| stops())?;
        let Message { events, skipped, .. } = read(&message)?;
        room.send(Report::Said { origin: origin.clone(), at, events, skipped: skipped.len() });
        Ok(())
    }

    async fn report(&self, report: Report) -> Result<(), Status> {
        self.reports.send(report).await.map_err(|_| stops())
    }

    /// Reports a stream that was ended here. A reset stream or a broken connection is a normal end.
    fn ended(&self, caller: &Caller, status: &Status) {
        if !matches!(status.code(), Code::Cancelled | Code::Unknown | Code::Unavailable) {
            self.gate.refused(&caller.address, status.message());
        }
    }

    fn begin(&self, origin: &Origin) {
        *self.streams().entry(origin.clone()).or_default() += 1;
    }

    /// Returns the number of the Envoy's other streams.
    fn end(&self, origin: &Origin) -> usize {
        let mut streams = self.streams();
        let left = streams.get(origin).map_or(0, |own| own.saturating_sub(1));
        if left == 0 {
            streams.remove(origin);
        } else {
            streams.insert(origin.clone(), left);
        }
        left
    }

    fn streams(&self) -> MutexGuard<'_, HashMap<Origin, usize>> {
        self.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Intake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Intake").field("bounds", &self.bounds).finish_non_exhaustive()
    }
}

fn read(bytes: &[u8]) -> Result<Message, Status> {
    Message::read(bytes).map_err(|error| Status::invalid_argument(error.to_string()))
}

fn no_permit() -> Status {
    Status::resource_exhausted("too many streams are open, and others have fewer: try again later")
}

fn stops() -> Status {
    Status::unavailable("the agent stops")
}

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
        let mut grpc = Grpc::new(Frames).max_decoding_message_size(self.intake.bounds.message);
        Box::pin(async move { Ok(grpc.client_streaming(method, request).await) })
    }
}

struct StreamAccessLogs(Arc<Intake>);

impl ClientStreamingService<Bytes> for StreamAccessLogs {
    type Response = ();
    type Future = BoxFuture<Response<()>, Status>;

    fn call(&mut self, request: Request<Streaming<Bytes>>) -> Self::Future {
        let intake = self.0.clone();
        Box::pin(async move {
            // A peer that disconnects drops this call, and the end of its stream must be reported.
            let task = tokio::spawn(async move {
                let caller = Caller::of(request.extensions());
                let result = intake.receive(&caller, request.into_inner()).await;
                result.inspect_err(|status| intake.ended(&caller, status))
            });
            task.await.map_err(|error| Status::internal(error.to_string()))?.map(Response::new)
        })
    }
}

/// Encoded messages; the response is always empty.
struct Frames;

impl Codec for Frames {
    type Encode = ();
    type Decode = Bytes;
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
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, frame: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(frame.copy_to_bytes(frame.remaining())))
    }
}
