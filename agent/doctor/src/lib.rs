//! The doctor: reads configurations around the agent and finds mistakes. Pure: from texts to findings. Files,
//! sockets and databases are read by the agent's command `doctor`.
//!
//! # Layout
//! - [`rule`]: what a rule is. The rules themselves are beside what they read.
//! - [`finding`], [`position`]: what they find, and where.
//! - [`setup`]: what is known beside the files.
//! - [`source`]: a text to be examined.
//! - [`haproxy`], [`envoy`]: the configurations of the proxies.

pub mod envoy;
pub mod finding;
pub mod haproxy;
pub mod position;
pub mod rule;
pub mod setup;
pub mod source;
