//! Answers to Envoy's HTTP health checks, as the agent gives them: for the cluster in the
//! path and the instance in the Host header.

use std::{
    collections::BTreeSet,
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex},
};

use axum::{
    Router,
    extract::Path,
    http::{HeaderMap, StatusCode},
    routing::get,
};
use tokio::net::TcpListener;
use tokio_util::task::AbortOnDropHandle;

/// 200 for the `cluster/instance` that are up, 503 for all others, while it exists.
pub struct Responder {
    pub address: SocketAddr,
    up: Arc<Mutex<BTreeSet<String>>>,
    _task: AbortOnDropHandle<()>,
}

impl Responder {
    pub async fn start(up: &[&str]) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let up = Arc::new(Mutex::new(set(up)));
        let known = up.clone();
        let answer = async move |Path(cluster): Path<String>, headers: HeaderMap| {
            let host = headers.get("host").and_then(|host| host.to_str().ok()).unwrap_or_default();
            let is_up = known.lock().unwrap().contains(&format!("{cluster}/{host}"));
            let status = if is_up { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
            // A connection that is kept would outlive the listener.
            (status, [("connection", "close")])
        };
        let router = Router::new().route("/envoy/{cluster}", get(answer));
        let task = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { address, up, _task: AbortOnDropHandle::new(task) }
    }

    pub fn answer(&self, up: &[&str]) {
        *self.up.lock().unwrap() = set(up);
    }
}

fn set(up: &[&str]) -> BTreeSet<String> {
    up.iter().map(|host| (*host).to_owned()).collect()
}
