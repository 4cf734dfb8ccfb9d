//! What the decider orders one HAProxy to do.

use agent_core::{ServerId, plan::Retire};
use tokio::time::Instant;

/// One order, and when it was decided: an old one is dropped.
#[derive(Debug)]
pub struct Order {
    pub command: Command,
    pub decided: Instant,
}

#[derive(Debug)]
pub enum Command {
    /// Drain a server that has no admin flag now. The drain is on record.
    Drain {
        server: ServerId,
        /// Also if no other server of the backend takes new sessions.
        force: bool,
    },
    /// Take a drain back, if the server is drained and not in maintenance.
    Undrain(ServerId),
    /// Set the agent check's state (up or down) at once, as the next check will.
    Agent(ServerId, bool),
    /// Close a session. Only soon after it was decided: the proxy cannot see what the session does
    /// meanwhile.
    Close(Box<Retire>),
}
