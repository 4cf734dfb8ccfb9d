//! One Envoy: it comes to the agent, so these tasks answer it rather than ask.
//!
//! - [`endpoints`]: publishes endpoints and the answers to health checks.
//! - [`discovery`]: what Envoys call, on one listener. [`checks`]: their active health checks.
//! - [`drains`]: the agent's own drains, which are words in the endpoints that Envoy is sent.
//! - [`access_log`]: the sessions that their access logs tell of.
//! - [`places`]: which server a session goes to.
//! - [`admin`]: whether it took what it was sent, and whether its settings are safe.
//! - [`hand_offs`]: clients that were not handed to a server.

pub mod access_log;
pub mod admin;
pub mod checks;
pub mod discovery;
pub mod drains;
pub mod endpoints;
pub mod hand_offs;
pub mod places;
