//! An open connection: its time limits, what it has learned of its server, its end.

use std::{mem, time::Duration};

use agent_core::{Fault, FaultKind, Phase};
use tokio::{runtime::Handle, time::timeout};

use super::{
    classify,
    memory::Memory,
    version::ServerVersion,
    wire::{Answered, ResultSet, Wire},
};
use crate::tls::VerifiedStream;

/// How long a connection may take to say goodbye.
const FAREWELL: Duration = Duration::from_secs(1);

/// An open session of the agent's on a MySQL or MariaDB server.
pub struct MySqlSession {
    link: Link,
    /// How long one round trip may take.
    limit: Duration,
    server: ServerVersion,
    /// What the questions have learned about it.
    pub(super) memory: Memory,
}

/// The connection, or why there is none.
enum Link {
    Open(Box<Wire<VerifiedStream>>),
    /// A question is on its way. It stays that way if the question is given up: then
    /// nobody knows which answer would come next.
    Asking(Fault),
    /// Of no use any more.
    Ended(Fault),
}

impl MySqlSession {
    pub(super) fn new(wire: Wire<VerifiedStream>, server: ServerVersion, limit: Duration) -> Self {
        Self { link: Link::Open(Box::new(wire)), limit, server, memory: Memory::default() }
    }

    /// Why the session is of no use any more, if it is not.
    pub fn fault(&self) -> Option<&Fault> {
        match &self.link {
            Link::Open(_) => None,
            Link::Asking(fault) | Link::Ended(fault) => Some(fault),
        }
    }

    /// What the server said it is when the session began.
    pub fn server(&self) -> &ServerVersion {
        &self.server
    }

    pub(super) fn take_for_mysql(&mut self) {
        self.server.mariadb = false;
    }

    /// Ends the session in good order.
    pub async fn close(mut self) {
        if let Some(wire) = self.hang_up() {
            // A server that stands still must not keep the caller.
            let _ = timeout(FAREWELL, wire.quit()).await;
        }
    }

    /// The results of one round trip, all statements of which must succeed.
    pub(super) async fn query(&mut self, sql: &str) -> Result<Vec<ResultSet>, Fault> {
        let answered = self.ask(sql).await?;
        match answered.refused {
            None => Ok(answered.results),
            Some(error) => Err(classify::refused(Phase::Query, &error)),
        }
    }

    /// One round trip, within the session's time limit. A statement that is refused
    /// ends the round trip, not the session, unless the server says so.
    pub(super) async fn ask(&mut self, sql: &str) -> Result<Answered, Fault> {
        let abandoned = Fault::new(
            Phase::Query,
            FaultKind::Disconnected,
            "a question was given up before its answer came, and the session with it",
        );
        let mut wire = match mem::replace(&mut self.link, Link::Asking(abandoned)) {
            Link::Open(wire) => wire,
            Link::Asking(fault) | Link::Ended(fault) => {
                let message = format!("the session is of no use any more: {fault}");
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
                let message = format!("no answer within {:?}, so the session was given up", self.limit);
                Fault::new(Phase::Query, FaultKind::TimedOut, message)
            }
        };
        self.link = Link::Ended(fault.clone());
        Err(fault)
    }

    /// The result of one statement; `None` if it is not allowed or asks for what is not there.
    pub(super) async fn if_allowed(&mut self, sql: &str) -> Result<Option<ResultSet>, Fault> {
        let answered = self.ask(sql).await?;
        match answered.refused {
            None => Ok(Some(answered.results.into_iter().next().unwrap_or_default())),
            Some(error) if classify::not_available(error.number) => Ok(None),
            Some(error) => Err(classify::refused(Phase::Query, &error)),
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

/// A session that is just dropped says goodbye as well: the server would count a
/// connection without one as aborted.
impl Drop for MySqlSession {
    fn drop(&mut self) {
        if let Some(wire) = self.hang_up()
            && let Ok(runtime) = Handle::try_current()
        {
            runtime.spawn(timeout(FAREWELL, wire.quit()));
        }
    }
}
