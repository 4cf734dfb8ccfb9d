//! The streams: endpoint discovery and aggregated discovery, both variants of each.
//!
//! A stream has no task and no queue: what it sends is made when the connection can take
//! it, of the snapshot that is then the last. Requests are read only then as well. So a
//! peer that does not read costs one message, and gets the newest state when it does.

use std::{fmt, sync::Arc, time::Duration};

use futures_util::{StreamExt, stream::BoxStream};
use tokio::{
    sync::watch,
    time::{Instant, timeout_at},
};
use tonic::{Request, Response, Status, Streaming, service::RoutesBuilder};

use super::{
    Heard, Incremental, Peers, Protocol, Rejected, Snapshot, StateOfTheWorld, Subscription, peers::Seat,
    resources::type_url,
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

/// What streams may cost.
#[derive(Copy, Clone, Debug)]
pub struct Bounds {
    /// Streams at once, shared fairly among the callers. Each cluster of an Envoy has its own; one
    /// that is refused or ended is tried again later.
    pub streams: usize,
    /// The length of a request, in bytes. The first one carries the names of all extensions
    /// of that Envoy: some tens of kilobytes.
    pub request: usize,
    /// How long a new stream may take to its first request.
    pub introduction: Duration,
    /// How long a response may stay without an answer. Then the stream is ended, and Envoy
    /// comes back and is told everything again.
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

/// What happened, for those who write logs and count.
#[derive(Clone, Debug)]
pub enum Event {
    /// An Envoy introduced itself.
    Connected {
        /// Its `node.id`.
        node: String,
        /// Where it called from.
        address: Arc<str>,
        /// What it speaks.
        protocol: Protocol,
    },
    /// It took what it was sent.
    Accepted {
        /// Its `node.id`.
        node: String,
        /// The version of the snapshot.
        version: String,
        /// From the sending to the answer.
        after: Duration,
    },
    /// It did not, and goes on with what it had.
    Rejected {
        /// Its `node.id`.
        node: String,
        /// What, and Envoy's words.
        rejected: Rejected,
    },
    /// The stream ended.
    Left {
        /// Its `node.id`; empty if it never said.
        node: String,
        /// Where it called from.
        address: Arc<str>,
    },
    /// A stream was not opened, or was ended for what the peer did.
    Refused {
        /// Where it called from.
        address: Arc<str>,
        /// Why.
        why: String,
    },
}

/// Where events go. Called from within a stream, so it must not block.
pub type Report = Arc<dyn Fn(Event) + Send + Sync>;

/// What there is to say, to each Envoy.
pub trait Source: Clone + Send + Sync + 'static {
    /// What to say to the Envoy with this `node.id`; `None` for one that is nobody's.
    fn for_node(&self, node: &str) -> Option<Snapshot>;
}

/// The same to all.
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
    /// Serves what the watch has. When its sender is gone, all streams end.
    pub fn new(source: watch::Receiver<T>, report: Report, bounds: Bounds) -> Self {
        let permits = Permits::new(bounds.streams);
        Self { source, peers: Peers::default(), report, bounds, permits }
    }

    /// Who is connected.
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
            seat: self.peers.sit(address.clone(), protocol),
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

/// What a stream sends.
type Sent<R> = BoxStream<'static, Result<R, Status>>;

/// A stream being opened.
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

    /// The one request of REST, which takes a hundred times as long to bring a change.
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

/// One stream: what the peer says, what there is to say, and what is between them.
struct Stream<S: Subscription, T> {
    inbound: Streaming<S::Request>,
    source: watch::Receiver<T>,
    subscription: S,
    protocol: Protocol,
    seat: Seat,
    /// Its `node.id`, once it was said.
    node: Option<String>,
    address: Arc<str>,
    report: Report,
    /// Until when the first request has to be here.
    introduction: Instant,
    /// How long a response may stay without an answer.
    answer: Duration,
    /// When the response under way was sent.
    sent: Option<Instant>,
    /// Given back when the stream ends.
    permit: Permit,
}

impl<S: Subscription<Request: Ask>, T: Source> Stream<S, T> {
    /// The next response; none when the peer or the agent has nothing more to say.
    async fn next(&mut self) -> Result<Option<S::Response>, Status> {
        loop {
            if let Some(response) = self.push()? {
                return Ok(Some(response));
            }
            let deadline = match (&self.node, self.sent) {
                (None, _) => Some((self.introduction, "no request within the time for the first one")),
                (_, Some(sent)) => {
                    Some((sent + self.answer, "a response has not been answered for too long"))
                }
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
                // A peer that resets the stream, or a connection that broke, is a normal end.
                Some(Err(status))
                    if matches!(status.code(), tonic::Code::Cancelled | tonic::Code::Unknown) =>
                {
                    return Ok(None);
                }
                Some(Err(status)) => return Err(status),
            }
        }
    }

    /// What there is to say now to the one who has introduced itself.
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
            self.seat.sent();
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
            // An empty answer would take clusters or listeners away; none leaves them.
            _ if aggregated => {
                self.seat.ignored();
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
                self.seat.accepted(&version);
                (self.report)(Event::Accepted { node: node(), version, after });
            }
            Heard::Rejected { version, clusters } => {
                self.sent = None;
                let words = request.error().map_or("", |status| &*status.message);
                let rejected = self.seat.rejected(&version, &clusters, words);
                (self.report)(Event::Rejected { node: node(), rejected });
            }
        }
        self.seat.asked(self.subscription.known());
        Ok(())
    }

    /// Envoy says who it is in the first request of a stream, and may leave it out later.
    fn introduce(&mut self, node: Option<&Node>) {
        if self.node.is_none() {
            let node = self.seat.introduced(node.unwrap_or(&Node::default()));
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

/// What requests of both variants have.
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
