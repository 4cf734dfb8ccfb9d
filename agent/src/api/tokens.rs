//! The token socket: `GET /token/DATABASE/USER` answers with a fresh IAM token, for programs that ask for a password
//! at each connection.
//!
//! Every program on the host can connect. The kernel reports the user that it runs as, and that decides which tokens it
//! gets. Nothing else is served.

use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError, RwLock},
};

use agent_aws::{CredentialChain, source::TokenSource};
use axum::{
    Router,
    extract::{
        Path, State,
        connect_info::{ConnectInfo, Connected},
    },
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
    serve::IncomingStream,
};
use jiff::Timestamp;
use tokio::{net::UnixListener, sync::Mutex};

use super::bounded::Bounded;
use crate::{
    config::SocketToken,
    events::{Event, TokenRefused},
    metrics::Metrics,
    token_files::{newest, source, uid},
};

/// When the token in an answer expires, as RFC 3339.
const EXPIRES: HeaderName = HeaderName::from_static("token-expires");

/// The user of the program at the other end, as the kernel reports it. `None` if it does not.
#[derive(Copy, Clone, Debug)]
pub struct Caller(Option<u32>);

struct Offered {
    token: SocketToken,
    chain: CredentialChain,
    /// Started by the first request.
    source: Mutex<Option<TokenSource>>,
}

impl Offered {
    /// Its source, started if it has not been.
    async fn started(&self) -> Result<TokenSource, String> {
        let mut started = self.source.lock().await;
        if let Some(source) = &*started {
            return Ok(source.clone());
        }
        let SocketToken { endpoint, user, region, .. } = &self.token;
        let source = source(endpoint, user, region.as_deref(), &self.chain).await?;
        Ok(started.insert(source).clone())
    }
}

/// By database and user.
type Tokens = BTreeMap<(String, String), Arc<Offered>>;

/// What the socket gives. Cheap to clone; all clones are one.
#[derive(Clone)]
pub struct Offers {
    tokens: Arc<RwLock<Tokens>>,
    metrics: Arc<Metrics>,
}

// === impl Offers ===

impl Offers {
    pub fn new(metrics: Arc<Metrics>) -> Self {
        Self { tokens: Arc::default(), metrics }
    }

    /// Gives what this configuration allows, and nothing else, from now on. An entry that is unchanged keeps its
    /// tokens: credentials may be away at the time of a reload.
    pub fn replace(&self, tokens: &[SocketToken], chain: &CredentialChain) {
        let mut offers = self.tokens.write().unwrap_or_else(PoisonError::into_inner);
        let new = tokens.iter().map(|token| {
            let name = (token.database.clone(), token.user.clone());
            let kept = offers.get(&name).filter(|offered| offered.token == *token).cloned();
            let fresh = || Offered { token: token.clone(), chain: chain.clone(), source: Mutex::default() };
            (name, kept.unwrap_or_else(|| Arc::new(fresh())))
        });
        *offers = new.collect();
    }

    fn of(&self, database: &str, user: &str) -> Option<Arc<Offered>> {
        let tokens = self.tokens.read().unwrap_or_else(PoisonError::into_inner);
        tokens.get(&(database.to_owned(), user.to_owned())).cloned()
    }
}

/// Answers for ever.
pub async fn serve(listener: Bounded<UnixListener>, offers: Offers) {
    let router = Router::new().route("/token/{database}/{user}", get(token)).with_state(offers);
    if let Err(error) = axum::serve(listener, router.into_make_service_with_connect_info::<Caller>()).await {
        tracing::error!(%error, "the token socket failed");
    }
}

impl Connected<IncomingStream<'_, Bounded<UnixListener>>> for Caller {
    fn connect_info(stream: IncomingStream<'_, Bounded<UnixListener>>) -> Self {
        Self(stream.io().get_ref().peer_cred().ok().map(|credentials| credentials.uid()))
    }
}

async fn token(
    State(offers): State<Offers>,
    ConnectInfo(Caller(caller)): ConnectInfo<Caller>,
    Path((database, user)): Path<(String, String)>,
) -> Response {
    let refused = |status: StatusCode, why: &str| (status, format!("{why}\n")).into_response();
    let Some(offered) = offers.of(&database, &user) else {
        return refused(StatusCode::NOT_FOUND, "`token_socket.tokens` has no such database and user");
    };
    let known = |peer: &String| uid(peer).ok().is_some_and(|uid| Some(uid) == caller);
    if !offered.token.peers.iter().any(known) {
        TokenRefused { database: &database, user: &user, uid: caller }.emit(&offers.metrics);
        return refused(StatusCode::FORBIDDEN, "your user is not among the `peers` of this token");
    }
    let newest = async { newest(&offered.started().await?).await };
    match newest.await {
        Ok(token) => {
            let mut headers = HeaderMap::new();
            headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
            let expires = Timestamp::try_from(token.expires_at()).map(|expires| expires.to_string());
            if let Some(expires) = expires.ok().and_then(|text| HeaderValue::from_str(&text).ok()) {
                headers.insert(EXPIRES, expires);
            }
            (headers, token.expose_secret().to_owned()).into_response()
        }
        Err(error) => refused(StatusCode::SERVICE_UNAVAILABLE, &error),
    }
}
