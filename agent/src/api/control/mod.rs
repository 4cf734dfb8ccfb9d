//! The control socket, for the commands of an operator to a running agent.
//!
//! HTTP over a Unix socket of mode 0600. Everything that changes the agent goes through it; the TCP port
//! is read-only.

mod client;
mod server;

pub use client::{ControlError, ask};
pub use server::{bind, router};
