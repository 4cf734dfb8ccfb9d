//! HAProxy: the agent-check protocol, which the agent answers, and the runtime API, which it uses.
//!
//! Types use HAProxy's own terms; what they mean for sessions and servers is decided elsewhere. Formats are
//! as measured on 2.6, 2.8, 3.0 and 3.2. The manual leaves most of them undocumented, so parsers find
//! fields by name and skip unknown ones.
//!
//! # Layout
//! - [`address`]: addresses of runtime sockets.
//! - [`agent_check`]: requests, replies, and the server that answers them.
//! - [`runtime`]: a persistent connection to the runtime API, and its typed answers.
//! - [`show_sess`]: the streaming parser of `show sess all`.
//! - [`sweep`]: the sessions of all workers of one HAProxy.
//! - [`close`]: the guarded `shutdown session`.
//! - [`log`]: the log lines of ended sessions.

pub mod address;
pub mod agent_check;
pub mod close;
pub mod log;
pub mod runtime;
pub mod show_sess;
pub mod sweep;

pub use address::Address;
