//! One Envoy. It connects to the agent, so these tasks answer its requests.
//!
//! - [`published`]: the state that is published; [`endpoints`] makes it from verdicts, addresses and drains.
//! - [`discovery`]: the services that Envoys call, on one listener. [`checks`]: their active health checks.
//! - [`drains`]: the agent's own drains, as a health status in its endpoints.
//! - [`access_log`]: the sessions in their access logs.
//! - [`session_addresses`]: which server a session goes to.
//! - [`admin`]: whether it accepted its endpoints, and whether its settings are safe.
//! - [`hand_offs`]: sessions that ended, for the journal of failures.

pub mod access_log;
pub mod admin;
pub mod checks;
pub mod discovery;
pub mod drains;
pub mod endpoints;
pub mod hand_offs;
pub mod published;
pub mod session_addresses;
