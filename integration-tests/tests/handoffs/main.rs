//! Failed sessions behind the real HAProxy: each phase provoked, named by the agent from HAProxy's log.
//!
//! - `journal`: what the agent reports. `client`: one session by hand
//! - `phases`: sessions that fail. `own`: sessions that the agent closes. `hostile`: other datagrams

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::print_stdout, reason = "a test")]

#[path = "../sessions/client.rs"]
#[allow(dead_code, reason = "shared with other tests")]
mod client;
mod hostile;
mod journal;
mod own;
mod phases;
