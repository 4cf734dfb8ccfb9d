//! The doctor: reads configurations around the agent and finds mistakes. Pure: from texts to findings. Files,
//! sockets and databases are read by the agent's command `doctor`.
//!
//! # Layout
//! - [`rule`]: what a rule is. The rules themselves are beside what they read.
//! - [`finding`], [`position`]: what they find, and where.
//! - [`setup`]: what is known beside the files.
//! - [`catalogue`]: all rules, as a list and as a page.
//! - [`source`]: a text to be examined.
//! - `tree`: YAML and JSON with lines.
//! - [`haproxy`], [`envoy`]: the configurations of the proxies.
//! - [`aws`]: answers of the AWS API.
//! - [`live`]: what logins have shown.
//! - [`render`]: the configurations that have no such mistakes.

pub mod aws;
pub mod catalogue;
pub mod envoy;
pub mod finding;
pub mod haproxy;
pub mod live;
pub mod position;
pub mod render;
pub mod rule;
pub mod setup;
pub mod source;
mod tree;
