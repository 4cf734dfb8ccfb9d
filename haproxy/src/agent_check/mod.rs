//! The agent-check protocol: HAProxy connects, sends `agent-send` and reads one line.
//!
//! - [`request`](Request): the text of `agent-send`, which names the server.
//! - [`reply`](Reply): the line.
//! - [`server`](serve): answers for all servers on one port, from memory.

mod reply;
mod request;
mod server;

pub use reply::{Admin, Health, Reply};
pub use request::Request;
pub use server::{Answer, Limits, serve};
