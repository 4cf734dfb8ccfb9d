//! The agent beside HAProxy or Envoy: configuration, tasks, servers, command line.
//!
//! # Layout
//! - [`cli`]: the command line. [`commands`]: a file per command.
//! - [`config`]: what the user says, and what it means.
//! - [`run`]: the agent itself: puts the tasks together, reloads, stops.
//! - [`engine`]: who speaks with a database of which kind.
//! - [`tasks`]: probes, liveness, sessions, proxies, and the decider.
//! - [`serve`]: agent-check answers and HTTP, from memory.
//! - [`control`]: the control socket of a running agent.
//! - [`state`]: what is remembered on disk.
//! - [`events`], [`metrics`]: what is told.
//! - [`clock`]: the only place that reads clocks for decisions.

pub mod cli;
pub mod clock;
pub mod commands;
pub mod config;
pub mod control;
pub mod engine;
pub mod events;
pub mod metrics;
pub mod run;
pub mod serve;
pub mod state;
pub mod tasks;
pub mod undrain;
