//! The streams: endpoint discovery and aggregated discovery, both variants of each.
//!
//! A stream has no task and no queue. A response is built when the connection can send it, from the latest
//! snapshot, and requests are read only then. So a peer that does not read costs one message, and gets the
//! newest state when it reads again.

use std::{fmt, sync::Arc, time::Duration};

use futures_util::{StreamExt, stream::BoxStream};
use tokio::{
    sync::watch,
    time::{Instant, timeout_at},
};
use tonic::{Request, Response, Status, Streaming, service::RoutesBuilder};

use super::{
    Heard, Incremental, Peers, Protocol, Rejected, Snapshot, StateOfTheWorld, Subscription,
    peers::Registration, resources::type_url,
};
use crate::{
    caller::Caller,
    permits::{Permit, Permits},
    proto::{
        AggregatedDiscoveryService, AggregatedDiscoveryServiceServer, DeltaDiscoveryRequest,
        DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse, EndpointDiscoveryService,
        EndpointDiscoveryServiceServer, Node, Status as RpcStatus,
    },
    serve::{Limits, Listener},
};

#[derive(Copy, Clone, Debug)]
pub struct Bounds {
    /// Open streams, shared fairly among the callers. Each cluster of an Envoy has its own; Envoy retries
    /// one that was refused or ended.
    pub streams: usize,
    /// The length of a request, in bytes. The first one lists all extensions of the Envoy, which takes
    /// tens of kilobytes.
    pub request: usize,
    /// The time limit for the first request of a stream.
    pub introduction: Duration,
    /// The time limit for the ACK or NACK of a response. Then the stream is ended; Envoy opens another and
    /// receives everything again.
    pub answer: Duration,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            streams: 256,
            request: 256 << 10,
            introduction: Duration::from_secs(10),
            answer: Duration::from_secs(60),
        }
    }
}

/// What happened, for logs and metrics.
#[derive(Clone, Debug)]
pub enum Event {
    /// The first request of a stream.
    Connected { node: String, address: Arc<str>, protocol: Protocol },
    Accepted {
        node: String,
        version: String,
        /// From the response to the ACK.
        after: Duration,
    },
    /// A NACK: Envoy keeps what it had.
    Rejected { node: String, rejected: Rejected },
    Left {
        /// `node.id`; empty if there was no request.
        node: String,
        address: Arc<str>,
    },
    /// A stream was not opened, or was ended because of the peer.
    Refused { address: Arc<str>, why: String },
}

/// Receives events. It is called within a stream, so it must not block.
pub type Report = Arc<dyn Fn(Event) + Send + Sync>;

/// The snapshot for each Envoy.
pub trait Source: Clone + Send + Sync + 'static {
    /// `None` for an Envoy that is not configured; its stream is ended.
    fn for_node(&self, node: &str) -> Option<Snapshot>;
}

/// The same for all.
impl Source for Snapshot {
    fn for_node(&self, _: &str) -> Option<Snapshot> {
        Some(self.clone())
    }
}

/// The services. Cheap to clone; all clones are one.
pub struct Server<T = Snapshot> {
    source: watch::Receiver<T>,
    peers: Peers,
    report: Report,
    bounds: Bounds,
    permits: Permits,
}

/// Serves endpoint discovery alone, until cancelled (dropped).
pub async fn serve(
    listener: impl Into<Listener> + Send,
    snapshots: watch::Receiver<Snapshot>,
    report: Report,
) {
    let mut routes = RoutesBuilder::default();
    Server::new(snapshots, report, Bounds::default()).add_to(&mut routes);
    crate::serve::serve(listener, routes.routes(), Limits::default()).await;
}

// === impl Server ===

impl<T: Source> Server<T> {
    /// All streams end when the sender of the watch is dropped.
    pub fn new(source: watch::Receiver<T>, report: Report, bounds: Bounds) -> Self {
        let permits = Permits::new(bounds.streams);
        Self { source, peers: Peers::default(), report, bounds, permits }
    }

    pub fn peers(&self) -> Peers {
        self.peers.clone()
    }

    /// Adds both services to those of a listener.
    pub fn add_to(&self, routes: &mut RoutesBuilder) {
        let most = self.bounds.request;
        routes
            .add_service(EndpointDiscoveryServiceServer::new(self.clone()).max_decoding_message_size(most))
            .add_service(AggregatedDiscoveryServiceServer::new(self.clone()).max_decoding_message_size(most));
    }

    fn open<S: Subscription<Request: Ask>>(
        &self,
        request: Request<Streaming<S::Request>>,
        protocol: Protocol,
    ) -> Result<Response<Sent<S::Response>>, Status> {
        let caller = Caller::of(request.extensions());
        let address = caller.address.clone();
        let Some(permit) = self.permits.take(&caller, 1) else {
            (self.report)(Event::Refused { address, why: "too many streams are open".into() });
            return Err(Status::resource_exhausted("too many streams are open: try again later"));
        };
        let stream = Stream {
            inbound: request.into_inner(),
            source: self.source.clone(),
            subscription: S::default(),
            protocol,
            entry: self.peers.register(address.clone(), protocol),
            node: None,
            address,
            report: self.report.clone(),
            introduction: Instant::now() + self.bounds.introduction,
            answer: self.bounds.answer,
            sent: None,
            permit,
        };
        let sent = futures_util::stream::unfold(Some(stream), |stream| async {
            let mut stream = stream?;
            match stream.next().await {
                Ok(Some(response)) => Some((Ok(response), Some(stream))),
                Ok(None) => None,
                Err(status) => {
                    let why = status.message().to_owned();
                    (stream.report)(Event::Refused { address: stream.address.clone(), why });
                    Some((Err(status), None))
                }
            }
        });
        Ok(Response::new(sent.boxed()))
    }
}

impl<T> Clone for Server<T> {
    fn clone(&self) -> Self {
        Self {
            source: self.source.clone(),
            peers: self.peers.clone(),
            report: self.report.clone(),
            bounds: self.bounds,
            permits: self.permits.clone(),
        }
    }
}

impl<T> fmt::Debug for Server<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("bounds", &self.bounds).finish_non_exhaustive()
    }
}

type Sent<R> = BoxStream<'static, Result<R, Status>>;

type Opened<R> = Result<Response<Sent<R>>, Status>;

#[tonic::async_trait]
impl<T: Source> EndpointDiscoveryService for Server<T> {
    type StreamEndpointsStream = Sent<DiscoveryResponse>;
    type DeltaEndpointsStream = Sent<DeltaDiscoveryResponse>;

    async fn stream_endpoints(
        &self,
        request: Request<Streaming<DiscoveryRequest>>,
    ) -> Opened<DiscoveryResponse> {
        self.open::<StateOfTheWorld>(request, Protocol::Eds)
    }

    async fn delta_endpoints(
        &self,
        request: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Opened<DeltaDiscoveryResponse> {
        self.open::<Incremental>(request, Protocol::DeltaEds)
    }

    /// For REST polling, which takes a hundred times as long for a change.
    async fn fetch_endpoints(
        &self,
        _: Request<DiscoveryRequest>,
    ) -> Result<Response<DiscoveryResponse>, Status> {
        Err(Status::unimplemented("only streams are served: use api_type GRPC or DELTA_GRPC"))
    }
}

#[tonic::async_trait]
impl<T: Source> AggregatedDiscoveryService for Server<T> {
    type StreamAggregatedResourcesStream = Sent<DiscoveryResponse>;
    type DeltaAggregatedResourcesStream = Sent<DeltaDiscoveryResponse>;

    async fn stream_aggregated_resources(
        &self,
        request: Request<Streaming<DiscoveryRequest>>,
    ) -> Opened<DiscoveryResponse> {
        self.open::<StateOfTheWorld>(request, Protocol::Ads)
    }

    async fn delta_aggregated_resources(
        &self,
        request: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Opened<DeltaDiscoveryResponse> {
        self.open::<Incremental>(request, Protocol::DeltaAds)
    }
}

// === impl Stream ===

struct Stream<S: Subscription, T> {
    inbound: Streaming<S::Request>,
    source: watch::Receiver<T>,
    subscription: S,
    protocol: Protocol,
    entry: Registration,
    /// `node.id`, from the first request on.
    node: Option<String>,
    address: Arc<str>,
    report: Report,
    /// The deadline for the first request.
    introduction: Instant,
    /// The time limit for an ACK or NACK.
    answer: Duration,
    /// When the unanswered response was sent.
    sent: Option<Instant>,
    permit: Permit,
}

impl<S: Subscription<Request: Ask>, T: Source> Stream<S, T> {
    /// The next response; `None` at the end of the stream.
    async fn next(&mut self) -> Result<Option<S::Response>, Status> {
        loop {
            if let Some(response) = self.push()? {
                return Ok(Some(response));
            }
            let deadline = match (&self.node, self.sent) {
                (None, _) => Some((self.introduction, "no first request in time")),
                (_, Some(sent)) => Some((sent + self.answer, "a response was not answered in time")),
                _ => None,
            };
            let inbound = &mut self.inbound;
            let source = &mut self.source;
            let revoked = self.permit.revoked();
            let next = async {
                tokio::select! {
                    () = revoked => Some(Err(Status::resource_exhausted(
                        "too many streams are open, and others have fewer: try again later",
                    ))),
                    request = inbound.message() => Some(request),
                    changed = source.changed() => match changed {
                        Ok(()) => None,
                        Err(_) => Some(Ok(None)),
                    },
                }
            };
            let next = match deadline {
                Some((deadline, why)) => {
                    timeout_at(deadline, next).await.map_err(|_| Status::deadline_exceeded(why))?
                }
                None => next.await,
            };
            match next {
                None => {}
                Some(Ok(Some(request))) => self.hear(&request)?,
                Some(Ok(None)) => return Ok(None),
                // A reset stream or a broken connection is a normal end.
                Some(Err(status))
                    if matches!(status.code(), tonic::Code::Cancelled | tonic::Code::Unknown) =>
                {
                    return Ok(None);
                }
                Some(Err(status)) => return Err(status),
            }
        }
    }

    /// The response that is due now, after the first request.
    fn push(&mut self) -> Result<Option<S::Response>, Status> {
        let Some(node) = &self.node else { return Ok(None) };
        let source = self.source.borrow_and_update().clone();
        let Some(snapshot) = source.for_node(node) else {
            return Err(Status::permission_denied(format!(
                "no Envoy with the node id {node:?} is configured"
            )));
        };
        Ok(self.subscription.push(&snapshot).map(|push| {
            self.sent = Some(Instant::now());
            self.entry.sent();
            push.response
        }))
    }

    fn hear(&mut self, request: &S::Request) -> Result<(), Status> {
        self.introduce(request.node());
        let aggregated = matches!(self.protocol, Protocol::Ads | Protocol::DeltaAds);
        match request.type_url() {
            "" if aggregated => return Err(Status::invalid_argument("a request without a type_url")),
            "" => {}
            asked if asked == type_url() => {}
            // An empty answer would remove clusters or listeners; no answer leaves them.
            _ if aggregated => {
                self.entry.ignored();
                return Ok(());
            }
            _ => return Err(Status::invalid_argument("only endpoints are served here")),
        }
        let heard = self
            .subscription
            .hear(request)
            .map_err(|refused| Status::invalid_argument(refused.to_string()))?;
        let node = || self.node.clone().unwrap_or_default();
        match heard {
            Heard::Asked => {}
            Heard::Stale => return Ok(()),
            Heard::Accepted { version } => {
                let after = self.sent.take().map(|sent| sent.elapsed()).unwrap_or_default();
                self.entry.accepted(&version);
                (self.report)(Event::Accepted { node: node(), version, after });
            }
            Heard::Rejected { version, clusters } => {
                self.sent = None;
                let words = request.error().map_or("", |status| &*status.message);
                let rejected = self.entry.rejected(&version, &clusters, words);
                (self.report)(Event::Rejected { node: node(), rejected });
            }
        }
        self.entry.asked(self.subscription.known());
        Ok(())
    }

    /// Envoy identifies itself in the first request of a stream, and may omit that later.
    fn introduce(&mut self, node: Option<&Node>) {
        if self.node.is_none() {
            let node = self.entry.introduced(node.unwrap_or(&Node::default()));
            let (address, protocol) = (self.address.clone(), self.protocol);
            (self.report)(Event::Connected { node: node.clone(), address, protocol });
            self.node = Some(node);
        }
    }
}

impl<S: Subscription, T> Drop for Stream<S, T> {
    fn drop(&mut self) {
        let node = self.node.take().unwrap_or_default();
        (self.report)(Event::Left { node, address: self.address.clone() });
    }
}

/// The fields that requests of both variants have.
trait Ask {
    fn node(&self) -> Option<&Node>;
    fn type_url(&self) -> &str;
    fn error(&self) -> Option<&RpcStatus>;
}

macro_rules! ask {
    ($request:ty) => {
        impl Ask for $request {
            fn node(&self) -> Option<&Node> {
                self.node.as_ref()
            }
            fn type_url(&self) -> &str {
                &self.type_url
            }
            fn error(&self) -> Option<&RpcStatus> {
                self.error_detail.as_ref()
            }
        }
    };
}

ask!(DiscoveryRequest);
ask!(DeltaDiscoveryRequest);
