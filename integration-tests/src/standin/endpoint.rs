//! A credentials endpoint in the shape of the one of ECS and EKS containers.
//!
//! `GET` with the right `Authorization` gives the current temporary credentials. It can be
//! made to fail in the ways that real ones do: silent, HTTP 500, connection refused.
//! Source: <https://docs.aws.amazon.com/sdkref/latest/guide/feature-container-credentials.html>

use std::{
    fmt, io,
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use axum::{
    Json, Router,
    extract::State,
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use jiff::Timestamp;
use serde_json::json;
use tokio::{
    net::{TcpListener, TcpSocket},
    runtime::Runtime,
    sync::watch,
};

use super::{
    credential::{Issuer, random_text},
    gate::background_runtime,
};
use crate::process::Error;

/// Connections that wait to be taken.
const QUEUE: u32 = 128;

const PATH: &str = "/v2/credentials/stand-in";

/// How the endpoint treats who asks it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Behaviour {
    Serving,
    /// Takes the connection and the request, and does not answer. Who still waits when that
    /// ends is answered then.
    Silent,
    Failing,
    /// Refuses connections. The port stays reserved.
    Refusing,
}

/// The credentials endpoint, on its own thread and a free port of 127.0.0.1.
pub struct CredentialsServer {
    address: SocketAddr,
    issuer: Arc<Issuer>,
    authorization: Arc<str>,
    behaviour: watch::Sender<Behaviour>,
    requests: Arc<AtomicU64>,
    runtime: Option<Runtime>,
}

impl fmt::Debug for CredentialsServer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let behaviour = *self.behaviour.borrow();
        write!(formatter, "CredentialsServer {{ {}, {behaviour:?}, secrets not shown }}", self.address)
    }
}

impl CredentialsServer {
    /// Starts the endpoint, which serves the credentials of `issuer`.
    pub fn start(issuer: Arc<Issuer>) -> Result<Self, Error> {
        let what = || Error::io("listen for the credentials endpoint");
        let runtime = background_runtime("credentials endpoint")?;
        let listener = {
            let _inside = runtime.enter();
            bound((Ipv4Addr::LOCALHOST, 0).into()).and_then(|socket| socket.listen(QUEUE)).map_err(what())?
        };
        let address = listener.local_addr().map_err(what())?;
        let authorization: Arc<str> = random_text(32, b"0123456789abcdef").into();
        let behaviour = watch::Sender::new(Behaviour::Serving);
        let requests = Arc::default();
        let desk = Desk {
            issuer: Arc::clone(&issuer),
            authorization: Arc::clone(&authorization),
            behaviour: behaviour.subscribe(),
            requests: Arc::clone(&requests),
        };
        runtime.spawn(serve(listener, address, desk));
        Ok(Self { address, issuer, authorization, behaviour, requests, runtime: Some(runtime) })
    }

    /// What the AWS SDKs read to find it: names and values of environment variables.
    pub fn environment(&self) -> Vec<(String, String)> {
        let uri = format!("http://{}{PATH}", self.address);
        vec![
            ("AWS_CONTAINER_CREDENTIALS_FULL_URI".to_owned(), uri),
            ("AWS_CONTAINER_AUTHORIZATION_TOKEN".to_owned(), self.authorization.to_string()),
        ]
    }

    /// Its address, such as `127.0.0.1:40123`.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The issuer, for rotating and revoking credentials.
    pub fn issuer(&self) -> &Issuer {
        &self.issuer
    }

    /// Changes how it treats who asks.
    pub fn behave(&self, behaviour: Behaviour) {
        self.behaviour.send_replace(behaviour);
    }

    /// How many requests have reached it, answered or not.
    pub fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }
}

impl Drop for CredentialsServer {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

#[derive(Clone)]
struct Desk {
    issuer: Arc<Issuer>,
    authorization: Arc<str>,
    behaviour: watch::Receiver<Behaviour>,
    requests: Arc<AtomicU64>,
}

/// Bound and not listening: connections are refused, and no other process gets the port.
fn bound(address: SocketAddr) -> io::Result<TcpSocket> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    Ok(socket)
}

async fn serve(mut listener: TcpListener, address: SocketAddr, desk: Desk) {
    let mut behaviour = desk.behaviour.clone();
    let routes = Router::new().route(PATH, get(answer)).with_state(desk);
    loop {
        tokio::select! {
            // It ends by itself only when it is dropped.
            _ = axum::serve(listener, routes.clone()) => return,
            refusing = behaviour.wait_for(|now| *now == Behaviour::Refusing) => if refusing.is_err() { return },
        }
        let socket = keep_trying(|| bound(address)).await;
        if behaviour.wait_for(|now| *now != Behaviour::Refusing).await.is_err() {
            return;
        }
        drop(socket);
        listener = keep_trying(|| bound(address)?.listen(QUEUE)).await;
    }
}

/// Until the kernel has let go of the address.
async fn keep_trying<T>(mut attempt: impl FnMut() -> io::Result<T>) -> T {
    loop {
        match attempt() {
            Ok(done) => return done,
            Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
        }
    }
}

async fn answer(State(mut desk): State<Desk>, headers: HeaderMap) -> Response {
    desk.requests.fetch_add(1, Ordering::Relaxed);
    let answer = desk.answer(&headers).await;
    // No kept connections: one from before would slip past `Refusing`.
    ([(header::CONNECTION, "close")], answer).into_response()
}

impl Desk {
    async fn answer(&mut self, headers: &HeaderMap) -> Response {
        let behaviour = self.behaviour.wait_for(|now| *now != Behaviour::Silent).await.map(|now| *now);
        if !matches!(behaviour, Ok(Behaviour::Serving)) {
            return StatusCode::INTERNAL_SERVER_ERROR.into_response();
        }
        let sent = headers.get(header::AUTHORIZATION).map(header::HeaderValue::as_bytes);
        if sent != Some(self.authorization.as_bytes()) {
            return StatusCode::UNAUTHORIZED.into_response();
        }
        let credential = self.issuer.current(Timestamp::now());
        Json(json!({
            "RoleArn": "arn:aws:iam::123456789012:role/stand-in",
            "AccessKeyId": credential.access_key,
            "SecretAccessKey": credential.secret_key,
            "Token": credential.session_token,
            // Whole seconds, rounded down: never later than what the verifier believes.
            "Expiration": credential.expires_at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        }))
        .into_response()
    }
}
