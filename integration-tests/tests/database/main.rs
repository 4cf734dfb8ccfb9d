//! The database crate against real PostgreSQL servers with genuine tokens, and
//! against a scripted server for what a real one does not do on demand.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a test")]

mod activity;
mod lab;
mod login;
mod retire;
mod rights;
mod role;
mod scripted;
mod scripted_login;
