//! The agent beside HAProxy or Envoy: configuration, tasks, servers, command line.
//!
//! # Layout
//! - [`cli`]: the command line. [`commands`]: a file per command.
//! - [`config`]: what the user says, and what it means.
//! - [`run`]: the agent itself: puts the tasks together, reloads, stops.
//! - [`messages`]: what tasks and the decider say to one another. [`shared`]: what all of them use.
//! - [`instances`]: probes, liveness and sessions of each database instance. [`engine`]: who speaks with
//!   a database of which kind.
//! - [`proxies`]: a folder per kind of proxy: HAProxy, Envoy.
//! - [`decider`]: the only one that decides. [`snapshot`]: what it publishes for everybody else.
//! - [`api`]: HTTP and the control socket.
//! - [`state`]: what is remembered on disk.
//! - [`events`], [`metrics`]: what is reported.
//! - [`clock`]: the only place that reads clocks for decisions.

pub mod api;
pub mod cli;
pub mod clock;
pub mod commands;
pub mod config;
pub mod decider;
pub mod engine;
pub mod events;
pub mod instances;
pub mod messages;
pub mod metrics;
pub mod proxies;
pub mod run;
pub mod shared;
pub mod snapshot;
pub mod state;
