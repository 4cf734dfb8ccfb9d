//! An open connection: its time limits and its end.

use std::{mem, time::Duration};

use agent_core::{Fault, FaultKind, Phase};
use tokio::{runtime::Handle, time::timeout};

use super::{
    classify,
    memory::Memory,
    version::ServerVersion,
    wire::{Answered, ResultSet, Wire},
};
use crate::{dial::during, tls::VerifiedStream};

/// The time limit for a clean logout.
const FAREWELL: Duration = Duration::from_secs(1);

/// One of the agent's sessions on a MySQL or MariaDB server.
pub struct MySqlSession {
    link: Link,
    /// The time limit of one round trip.
    limit: Duration,
    server: ServerVersion,
    pub(super) memory: Memory,
}

enum Link {
    Open(Box<Wire<VerifiedStream>>),
    /// A query is under way. The state remains if its future is dropped: the next packet would
    /// then belong to the abandoned query.
    Asking(Fault),
    /// Unusable.
    Ended(Fault),
}

impl MySqlSession {
    pub(super) fn new(wire: Wire<VerifiedStream>, server: ServerVersion, limit: Duration) -> Self {
        Self { link: Link::Open(Box::new(wire)), limit, server, memory: Memory::default() }
    }

    /// Why the session is unusable; `None` while it is usable.
    pub fn fault(&self) -> Option<&Fault> {
        match &self.link {
            Link::Open(_) => None,
            Link::Asking(fault) | Link::Ended(fault) => Some(fault),
        }
    }

    /// What the server reported at login.
    pub fn server(&self) -> &ServerVersion {
        &self.server
    }

    pub(super) fn take_for_mysql(&mut self) {
        self.server.mariadb = false;
    }

    /// Completes when the server has sent something or closed the connection; the next query reads
    /// what. Nothing is read here, so it may be dropped at any time.
    pub async fn interrupted(&mut self) {
        if let Link::Open(wire) = &self.link {
            // An error, too, is reported by the next query.
            let _ = wire.stream().get_ref().0.peek(&mut [0]).await;
        }
    }

    /// Logs out, then closes the connection.
    pub async fn close(mut self) {
        if let Some(wire) = self.hang_up() {
            // A frozen server must not keep the caller waiting.
            let _ = timeout(FAREWELL, wire.quit()).await;
        }
    }

    /// The results of one round trip; an error if any of its statements failed. `what` is what the
    /// statements read or do, for the message of a fault.
    pub(super) async fn query(&mut self, what: &str, sql: &str) -> Result<Vec<ResultSet>, Fault> {
        let answered = self.ask(what, sql).await?;
        match answered.refused {
            None => Ok(answered.results),
            Some(error) => Err(during(what, classify::refused(Phase::Query, &error))),
        }
    }

    /// One round trip, within the session's time limit. An error of a statement ends the round
    /// trip; it ends the session only if the server closes it.
    pub(super) async fn ask(&mut self, what: &str, sql: &str) -> Result<Answered, Fault> {
        let abandoned = Fault::new(
            Phase::Query,
            FaultKind::Disconnected,
            "a query was abandoned before its result arrived, so the session was closed",
        );
        let mut wire = match mem::replace(&mut self.link, Link::Asking(abandoned)) {
            Link::Open(wire) => wire,
            Link::Asking(fault) | Link::Ended(fault) => {
                let message = format!("the session is unusable: {fault}");
                self.link = Link::Ended(fault);
                return Err(Fault::new(Phase::Query, FaultKind::Disconnected, message));
            }
        };
        let fault = match timeout(self.limit, wire.query(sql)).await {
            Ok(Ok(answered)) => match &answered.refused {
                Some(error) if classify::ends_session(error.number) => classify::refused(Phase::Query, error),
                _ => {
                    self.link = Link::Open(wire);
                    return Ok(answered);
                }
            },
            Ok(Err(error)) => classify::broken(Phase::Query, &error),
            Err(_) => {
                let message = format!("no answer within {:?}, so the session was closed", self.limit);
                Fault::new(Phase::Query, FaultKind::TimedOut, message)
            }
        };
        let fault = during(what, fault);
        self.link = Link::Ended(fault.clone());
        Err(fault)
    }

    /// The result of one statement; `None` if the agent may not run it or the server has no such
    /// thing.
    pub(super) async fn if_allowed(&mut self, what: &str, sql: &str) -> Result<Option<ResultSet>, Fault> {
        let answered = self.ask(what, sql).await?;
        match answered.refused {
            None => Ok(Some(answered.results.into_iter().next().unwrap_or_default())),
            Some(error) if classify::not_available(error.number) => Ok(None),
            Some(error) => Err(during(what, classify::refused(Phase::Query, &error))),
        }
    }

    fn hang_up(&mut self) -> Option<Box<Wire<VerifiedStream>>> {
        let closed = Fault::new(Phase::Query, FaultKind::Disconnected, "it was closed");
        match mem::replace(&mut self.link, Link::Ended(closed)) {
            Link::Open(wire) => Some(wire),
            Link::Asking(_) | Link::Ended(_) => None,
        }
    }
}

/// A dropped session logs out too: the server counts connections without a logout as aborted.
impl Drop for MySqlSession {
    fn drop(&mut self) {
        if let Some(wire) = self.hang_up()
            && let Ok(runtime) = Handle::try_current()
        {
            runtime.spawn(timeout(FAREWELL, wire.quit()));
        }
    }
}
