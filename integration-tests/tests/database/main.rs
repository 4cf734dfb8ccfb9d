//! The database crate against real servers with genuine tokens, and against scripted
//! ones for what a real one does not do on demand: the same tests, engine by engine.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a test")]

mod mysql;
mod postgresql;
