//! One Envoy: it comes to the agent, so these tasks answer it rather than ask.
//!
//! - [`eds`]: from verdicts to endpoints.
//! - [`checked`]: from verdicts to what health checks are answered.
//! - [`drains`]: the agent's own drains, which are words in the endpoints that Envoy is sent.
//! - [`sessions`]: the sessions that their access logs tell of.
//! - [`places`]: which server a session goes to.
//! - [`admin`]: whether it took what it was sent, and whether its settings are safe.
//! - [`hand_offs`]: clients that were not handed to a server.

pub mod admin;
pub mod checked;
pub mod drains;
pub mod eds;
pub mod hand_offs;
pub mod places;
pub mod sessions;
