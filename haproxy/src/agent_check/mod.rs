//! The agent-check protocol: HAProxy connects, sends `agent-send`, reads a line.
//!
//! - [`request`](Request): which server is asked about.
//! - [`reply`](Reply): the line.
//! - [`server`](serve): many servers on one port, answered from memory.

mod reply;
mod request;
mod server;

pub use reply::{Admin, Health, Reply};
pub use request::Request;
pub use server::{Answer, Limits, serve};
