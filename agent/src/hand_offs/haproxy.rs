//! What a line of HAProxy's log means: whether the session failed, and in which phase. Pure.
//!
//! Measured on 2.6 and 2.8 in mode tcp: a session that was connected ends as `SD`, `CD` or `--` whether it went well, was
//! reset, or its login was refused. So only sessions without a connection, and those that HAProxy itself ended, are certain.

use std::{borrow::Cow, sync::Arc, time::Duration};

use agent_core::{
    DatabaseName, InstanceId,
    hand_offs::{Certainty, Failure, Phase},
};
use haproxy::log::{Ended, Moment, Side};

/// A refused login is over sooner than this. RDS checks an IAM token in well under a second.
const LOGIN_TAKES: Duration = Duration::from_secs(3);

/// The server sends no more than this to a client that it refuses: its certificates and an error.
const REFUSAL_BYTES: u64 = 16 * 1024;

/// A client that leaves sooner has not waited for anything.
const PATIENCE: Duration = Duration::from_secs(1);

/// The port of the waiting room in the shipped configurations, on which nothing listens.
const WAITING_ROOM: u16 = 9;

/// A configured server, as far as a line of the log needs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    pub backend: Arc<str>,
    pub server: Arc<str>,
    pub instance: InstanceId,
    /// MySQL and MariaDB greet the client before it has sent anything.
    pub greets: bool,
}

/// Whether a session failed.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Judgement {
    /// It did not, or it was none.
    Fine,
    /// It ended as one that went well does, and as one does whose server is gone.
    Ended,
    Failed(Phase, Certainty),
}

/// `greets` says that the server speaks first, `configured` that the chosen server is in the configuration.
pub fn judge(ended: &Ended<'_>, greets: bool, configured: bool) -> Judgement {
    use Certainty::{Certain, Suspected};
    let certain = |phase| Judgement::Failed(phase, Certain);
    match ended.state.side {
        Side::Refused => certain(Phase::ProxyRefused),
        Side::Resource | Side::Internal => certain(Phase::ProxyFailed),
        Side::Down | Side::Up | Side::Killed => certain(Phase::CutByProxy),
        Side::ServerTimeout => certain(match ended.state.moment {
            Moment::Queue => Phase::QueueTimedOut,
            Moment::Connect if waiting_room(ended, configured) => Phase::NoServer,
            Moment::Connect => Phase::ConnectTimedOut,
            _ => Phase::IdleTimedOut,
        }),
        Side::ClientTimeout => certain(Phase::IdleTimedOut),
        Side::Local => Judgement::Fine,
        Side::Server if ended.connected.is_none() => {
            let without = ended.server.is_none() || waiting_room(ended, configured);
            certain(if without { Phase::NoServer } else { Phase::ConnectRefused })
        }
        Side::Client if ended.connected.is_none() && ended.lasted >= PATIENCE => certain(Phase::GaveUp),
        Side::Client | Side::Normal if ended.connected.is_none() => Judgement::Fine,
        Side::Client | Side::Server | Side::Normal if ended.to_client == 0 => unanswered(ended, greets),
        Side::Client | Side::Server | Side::Normal if short(ended, greets) => {
            Judgement::Failed(Phase::LoginRefused, Suspected)
        }
        Side::Client | Side::Server | Side::Normal => Judgement::Ended,
    }
}

/// Connected, and not a byte from the server.
fn unanswered(ended: &Ended<'_>, greets: bool) -> Judgement {
    // A client that was there for a moment only is a check of the port.
    let waited = ended.lasted >= PATIENCE || ended.state.side == Side::Server;
    let asked = greets || ended.from_client.is_some_and(|bytes| bytes > 0);
    if asked && waited { Judgement::Failed(Phase::NoAnswer, Certainty::Certain) } else { Judgement::Fine }
}

/// Few bytes, and over at once.
fn short(ended: &Ended<'_>, greets: bool) -> bool {
    let silent = ended.from_client == Some(0);
    ended.lasted <= LOGIN_TAKES
        && ended.to_client <= REFUSAL_BYTES
        // A server that greets may refuse before the client has said anything; a check of the port leaves first.
        && (!silent || greets && ended.state.side == Side::Server)
}

/// The last try went to a server on which nothing listens: no other one was usable.
fn waiting_room(ended: &Ended<'_>, configured: bool) -> bool {
    !configured
        && (ended.server == Some("wait")
            || ended.peer.is_some_and(|peer| peer.ip().is_loopback() && peer.port() == WAITING_ROOM))
}

/// The failure of a session. `server` is the chosen one, if it is configured.
pub fn failure(
    proxy: &Arc<str>,
    backend: &Arc<str>,
    database: Option<DatabaseName>,
    server: Option<&Server>,
    ended: &Ended<'_>,
    (phase, certainty): (Phase, Certainty),
) -> Failure {
    Failure {
        proxy: proxy.clone(),
        backend: backend.clone(),
        configured: true,
        server: server.map(|server| server.server.clone()).or_else(|| ended.server.map(Arc::from)),
        database,
        instance: server.map(|server| server.instance.clone()),
        source: ended.source,
        outgoing: ended.outgoing,
        phase,
        certainty,
        state: Cow::Owned(ended.state.to_string()),
        meaning: Cow::Borrowed(ended.state.words()),
        lasted: ended.lasted,
        connected: ended.connected,
        retries: Some(ended.retries),
        from_client: ended.from_client,
        to_client: Some(ended.to_client),
        error: ended.error.map(Arc::from),
    }
}
