//! The database crate against real servers with genuine tokens, and against scripted
//! ones for what a real one does not do on demand.
//!
//! - `lab`: a stand-in and logins to it
//! - `logins`: tests that are the same for both engines
//! - `mysql`, `postgresql`: what differs by engine

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a test")]

mod lab;
mod logins;
mod mysql;
mod peers;
mod postgresql;
