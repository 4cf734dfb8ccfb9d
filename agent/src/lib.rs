//! The agent beside HAProxy or Envoy: command line, configuration, tasks and listeners.
//!
//! # Layout
//! From the lowest layer to the highest; `tests/modules.rs` asserts the order.
//!
//! - [`clock`]: the monotonic time of the agent. [`metrics`]: the table of all metrics.
//! - [`cli`]: the syntax of the command line. [`config`]: the configuration file and its meaning.
//! - [`state`]: files in the state directory. [`events`]: log lines with their metrics. [`engine`]: the
//!   implementation for each database engine.
//! - [`hand_offs`]: client sessions that failed. [`messages`]: messages between the tasks and the decider. [`snapshot`]: the state that the decider
//!   publishes. [`seen`]: what a HAProxy shows, compared with the configuration. [`status`]: the documented
//!   view of the state. [`shared`]: what all tasks use.
//! - [`instances`]: the tasks of each database instance. [`proxies`]: the tasks of each proxy.
//!   [`token_files`]: tokens in files, for clients. [`topology`]: what AWS reports, compared with the configuration.
//! - [`decider`]: the task that decides.
//! - [`api`]: HTTP and the control socket.
//! - [`run`]: start, reload and stop. [`commands`]: a file per command.

pub mod api;
pub mod cli;
pub mod clock;
pub mod commands;
pub mod config;
pub mod decider;
pub mod engine;
pub mod events;
pub mod hand_offs;
pub mod instances;
pub mod messages;
pub mod metrics;
pub mod proxies;
pub mod run;
pub mod seen;
pub mod shared;
pub mod snapshot;
pub mod starvation;
pub mod state;
pub mod status;
pub mod token_files;
pub mod topology;
