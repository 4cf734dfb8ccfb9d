//! The shipped recipes while the agent is dead, and while no server is usable, on a real HAProxy 2.6 and
//! 2.8 and a real Envoy.
//!
//! Servers are simple programs that name their role, and the agent is this test's own, since neither the
//! database nor the agent's decisions matter here.
//!
//! `WITHOUT_AGENT_ROUNDS` sets how often HAProxy is reloaded, restarted or killed: 200 in `make test-long`.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test")]

mod agent;
mod databases;
mod envoy_waiting;
mod fail_closed;
mod lab;
#[path = "../envoy/name_server.rs"]
mod name_server;
mod recipes;
mod servers_state;
mod state_file;
mod waiting_room;
