//! What the agent knows of HAProxy: the agent-check protocol it answers, and
//! the runtime API it asks.
//!
//! Types here are HAProxy's own words; what they mean for sessions and servers
//! is decided elsewhere. Formats are as measured on 2.6, 2.8, 3.0 and 3.2; the
//! manual leaves most of them undocumented, so parsers go by key and skip what
//! they do not know.
//!
//! # Layout
//! - [`address`]: where a runtime socket is.
//! - [`agent_check`]: requests, replies, and the server that answers them.
//! - [`runtime`]: one kept connection to the runtime API, and its typed answers.
//! - [`show_sess`]: the streaming parser of `show sess all`.
//! - [`sweep`]: all sessions of all workers of one HAProxy.
//! - [`close`]: the guarded `shutdown session`.

pub mod address;
pub mod agent_check;
pub mod close;
pub mod runtime;
pub mod show_sess;
pub mod sweep;

pub use address::Address;
