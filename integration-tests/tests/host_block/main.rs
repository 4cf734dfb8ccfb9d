//! A server of the MySQL family blocks an address after a few connections that end before
//! their login: the agent's own logins never count, they take the count back, and HAProxy's
//! own checks are what blocks a proxy. Measured from 127.0.0.x, for 127.0.0.1 is exempt.
//!
//! `HOST_BLOCK_PROBES` says how many logins `long` makes (1,000 in `make test`, 10,000 in `make test-long`).

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a test")]

mod agent;
mod lab;
mod long;
mod server;
mod unfinished;
