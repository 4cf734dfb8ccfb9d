//! One HAProxy: the agent asks its runtime socket, and answers its agent checks.
//!
//! - [`admin`]: admin flags, drains and closes over the runtime socket.
//! - [`orders`]: what it is ordered to do.
//! - [`sweeps`]: its sessions.
//! - [`agent_check`]: the agent-check server.
//! - [`take_back`]: takes recorded drains back, with nothing but the records.

pub mod admin;
pub mod agent_check;
pub mod orders;
pub mod sweeps;
pub mod take_back;
