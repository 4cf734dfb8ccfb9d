//! The control socket: what an operator's commands ask of a running agent.
//!
//! HTTP over a Unix socket of mode 0600. The TCP port only answers questions;
//! everything that changes something goes through here.

mod client;
mod server;

pub use client::{ControlError, ask};
pub use server::{bind, router};
