//! One failed session.

use std::{borrow::Cow, net::SocketAddr, sync::Arc, time::Duration};

use serde::Serialize;

use super::Phase;
use crate::{DatabaseName, InstanceId};

/// How sure it is that a session failed as its phase says.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Certainty {
    /// By the shape of the session alone; it may have gone well.
    Suspected,
    /// The agent's own logins or queries on the instance failed at that time too.
    Likely,
    Certain,
}

impl Certainty {
    pub fn word(self) -> &'static str {
        match self {
            Self::Suspected => "suspected",
            Self::Likely => "likely",
            Self::Certain => "certain",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The name of the proxy.
    pub proxy: Arc<str>,
    /// The backend or cluster; `-` if it is unknown.
    pub backend: Arc<str>,
    /// Whether backend and server are in the configuration. Others are `other` in metrics and counts.
    pub configured: bool,
    /// `None` if none was chosen.
    pub server: Option<Arc<str>>,
    /// The database behind the backend, if it is configured.
    pub database: Option<DatabaseName>,
    pub instance: Option<InstanceId>,
    /// The client; `None` for one on a Unix socket.
    pub source: Option<SocketAddr>,
    /// The proxy's address and port towards the server.
    pub outgoing: Option<SocketAddr>,
    pub phase: Phase,
    pub certainty: Certainty,
    /// The termination state of HAProxy, or the response flags of Envoy.
    pub state: Cow<'static, str>,
    /// The same in words.
    pub meaning: Cow<'static, str>,
    /// From accept to end.
    pub lasted: Duration,
    /// The time that the connection to the server took; `None` if there was none, or it is unknown.
    pub connected: Option<Duration>,
    pub retries: Option<u32>,
    pub from_client: Option<u64>,
    pub to_client: Option<u64>,
    /// The proxy's own message.
    pub error: Option<Arc<str>>,
}

impl Failure {
    /// The backend as a label: a configured one, or `other`.
    pub fn backend_label(&self) -> &str {
        if self.configured { &self.backend } else { "other" }
    }

    /// The server as a label: a configured one, `none`, or `other`.
    pub fn server_label(&self) -> &str {
        match &self.server {
            None => "none",
            Some(server) if self.configured && self.instance.is_some() => server,
            Some(_) => "other",
        }
    }

    /// The client's address, for logs and operators.
    pub fn client(&self) -> String {
        self.source.map_or_else(|| "unix".to_owned(), |source| source.to_string())
    }
}
