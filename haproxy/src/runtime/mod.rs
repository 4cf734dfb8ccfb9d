//! A persistent connection to the runtime API, and its typed answers.
//!
//! - [`connection`](Connection): the socket, in `prompt` mode, with limits on time and size.
//! - [`error`](RuntimeError): errors, with what to do about them.
//! - [`info`](Info), [`stat`](Stat), [`servers_state`](ServerState): answers, read by name.
//! - [`state_file`]: `show servers state` as a server state file.

mod connection;
mod error;
mod info;
mod servers_state;
mod stat;
pub mod state_file;

pub(crate) use connection::refusal;
pub use connection::{Connection, Limits, ask_once, stream_once};
pub use error::RuntimeError;
pub use info::{Info, Version};
pub use servers_state::{AdminState, Check, Operational, ServerState};
pub use stat::Stat;
