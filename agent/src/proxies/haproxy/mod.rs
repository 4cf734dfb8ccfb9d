//! One HAProxy: the agent asks its runtime socket, and answers its agent checks.
//!
//! - [`admin`]: admin flags, drains and closes over the runtime socket.
//! - [`orders`]: what it is ordered to do.
//! - [`rivals`]: notices another agent on the same HAProxy.
//! - [`sweeps`]: its sessions. [`log`]: sessions that failed, from its log.
//! - [`agent_check`]: the agent-check server.
//! - [`release`]: ends what the agent has set, with nothing but the records: [`take_back`] for a drain,
//!   [`lift`] for a server that is DOWN.

pub mod admin;
pub mod agent_check;
pub mod lift;
pub mod log;
pub mod orders;
pub mod release;
pub mod rivals;
pub mod sweeps;
pub mod take_back;
