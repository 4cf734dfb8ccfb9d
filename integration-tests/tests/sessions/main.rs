//! Retirement on real servers: which sessions are closed and when, which are held and why, at what rate,
//! and what an operator can do about it.
//!
//! - `client`: one session by hand
//! - `view`: what the agent reports
//! - `holds`, `pace`, `rights`, `sight`, `names`, `balancers`, `proxy`, `breaker`, `commands`, `floor`, `operators_drains`,
//!   `reload`, `unix_clients`: the scenarios

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::print_stdout, reason = "a test")]

mod balancers;
mod breaker;
mod client;
mod commands;
mod floor;
mod holds;
mod names;
mod operators_drains;
mod pace;
mod proxy;
mod reload;
mod rights;
mod sight;
mod unix_clients;
mod view;
