//! The real Envoy, with the configurations of `deploy/envoy` as they are shipped.
//!
//! - `lab`: stand-ins and an Envoy in front of them; `client`: one session by hand
//! - `name_server`: the one name server of a test; `responder`: answers to health checks
//! - `recipes`: Envoy takes the files
//! - `agent`: endpoint discovery out of the test itself
//! - `endpoints`: which instance new sessions reach, as endpoint discovery says it
//! - `agent_checks`: the agent's own answers to health checks
//! - `agent_gone`: what becomes of sessions when endpoint discovery ends, and comes back
//! - `fallback`: what clients get while the agent has nothing to say
//! - `moving_name`: an instance whose name moves
//! - `rejected`: endpoints that Envoy does not take
//! - `seen`: what the agent reads from Envoy: settings, accepted endpoints, clients that reached no server
//! - `sessions_log`: the file log
//! - `static_checks`: endpoints in the file, checks answered by the agent
//! - `static_whole_agent`: the agent itself answers them
//! - `waiting`: clients that come while no endpoint is usable, with the agent itself
//! - `whole_agent`: the agent itself beside it

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::print_stdout, reason = "a test")]

mod agent;
mod agent_checks;
mod agent_gone;
mod client;
mod endpoints;
mod fallback;
mod lab;
mod moving_name;
mod name_server;
mod recipes;
mod rejected;
mod responder;
mod seen;
mod sessions_log;
mod static_checks;
mod static_whole_agent;
mod waiting;
mod whole_agent;
