//! Many agents at one database: drains that exclude one another, and a login budget that all share.
//!
//! - `race`: two agents that drain the last two servers, in every order of their steps.
//! - `share`: the budget, from one agent to a thousand.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a test may panic")]
#![allow(clippy::cast_possible_truncation, clippy::print_stdout, reason = "small numbers, and a table")]

mod race;
mod share;
#[path = "../support/mod.rs"]
mod support;
