//! Which server gets new sessions, through the whole agent: real servers, a real proxy and the agent's binary.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test")]

mod addresses;
mod differences;
mod observe;
mod sources;
mod state_file;
mod steps;
