//! `grpc.health.v1`: the service name is the cluster, `:authority` is the endpoint.
//!
//! Envoy has one service name for each cluster and uses `Check`. `Watch` is for other clients; it sends the
//! same answer, and each change.

use std::{
    convert::Infallible,
    fmt,
    sync::Arc,
    task::{Context, Poll},
};

use futures_util::{StreamExt, stream::BoxStream};
use tokio::sync::Semaphore;
use tonic::{
    Request, Response, Status,
    body::Body,
    codegen::{Service, http},
    server::NamedService,
    service::RoutesBuilder,
};

use super::{Answer, Source, Waiting};
use crate::{
    caller::Caller,
    proto::{Health, HealthCheckRequest, HealthCheckResponse, HealthServer, ServingStatus},
};

/// The maximum length of a request, in bytes: one name.
const LONGEST: usize = 4 << 10;

/// The most open watches. Envoy uses none.
const MOST_WATCHES: usize = 64;

#[derive(Clone)]
pub struct Checks {
    waiting: Waiting,
    watches: Arc<Semaphore>,
}

// === impl Checks ===

impl Checks {
    /// Answers from this source.
    pub fn new(source: Arc<dyn Source>) -> Self {
        Self { waiting: Waiting::new(source), watches: Arc::new(Semaphore::new(MOST_WATCHES)) }
    }

    /// Adds it to the services of a listener.
    pub fn add_to(self, routes: &mut RoutesBuilder) {
        let service = HealthServer::new(self).max_decoding_message_size(LONGEST);
        routes.add_service(WithAuthority(service));
    }
}

impl fmt::Debug for Checks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Checks").finish_non_exhaustive()
    }
}

struct Question {
    cluster: String,
    header: Option<String>,
    authority: Option<String>,
}

impl Question {
    fn of(request: &Request<HealthCheckRequest>) -> Self {
        let header = request.metadata().get(super::HEADER);
        Self {
            cluster: request.get_ref().service.clone(),
            header: header.and_then(|header| Some(header.to_str().ok()?.to_owned())),
            authority: request.extensions().get::<Authority>().map(|it| it.0.as_str().to_owned()),
        }
    }

    fn ask(&self, source: &dyn Source) -> Option<HealthCheckResponse> {
        source.answer(&self.cluster, self.header.as_deref(), self.authority.as_deref()).map(response)
    }
}

fn response(answer: Answer) -> HealthCheckResponse {
    let status = if answer.serves() { ServingStatus::Serving } else { ServingStatus::NotServing };
    HealthCheckResponse { status: status.into() }
}

#[tonic::async_trait]
impl Health for Checks {
    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        let Question { cluster, header, authority } = Question::of(&request);
        let answer = self.waiting.answer(&cluster, header.as_deref(), authority.as_deref()).await;
        let answer = answer.ok_or_else(|| Status::unavailable("nothing is known yet"))?;
        Ok(Response::new(response(answer)))
    }

    type WatchStream = BoxStream<'static, Result<HealthCheckResponse, Status>>;

    async fn watch(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let permit = self.watches.clone().try_acquire_owned();
        let permit = permit.map_err(|_| Status::resource_exhausted("too many watches: use Check"))?;
        let waiting = self.waiting.clone();
        let question = Arc::new(Question::of(&request));
        // The stream of responses outlives the request.
        let in_use = Caller::of(request.extensions()).in_use();
        let state = (waiting.source().changes(), None, (permit, in_use));
        let said = futures_util::stream::unfold(state, move |(mut changes, said, held)| {
            let (waiting, question) = (waiting.clone(), question.clone());
            async move {
                loop {
                    changes.mark_unchanged();
                    let now = question.ask(waiting.source());
                    if let Some(now) = now.filter(|now| said != Some(*now)) {
                        return Some((Ok(now), (changes, Some(now), held)));
                    }
                    changes.changed().await.ok()?;
                }
            }
        });
        Ok(Response::new(said.boxed()))
    }
}

// === impl WithAuthority ===

/// Passes `:authority` on in the extensions, since services do not see it otherwise.
#[derive(Clone, Debug)]
struct WithAuthority<S>(S);

/// The `:authority` of a request, in its extensions.
#[derive(Clone, Debug)]
struct Authority(http::uri::Authority);

impl<S: Service<http::Request<Body>, Error = Infallible>> Service<http::Request<Body>> for WithAuthority<S> {
    type Response = S::Response;
    type Error = Infallible;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, mut request: http::Request<Body>) -> S::Future {
        if let Some(authority) = request.uri().authority().cloned() {
            request.extensions_mut().insert(Authority(authority));
        }
        self.0.call(request)
    }
}

impl<S: NamedService> NamedService for WithAuthority<S> {
    const NAME: &'static str = S::NAME;
}
