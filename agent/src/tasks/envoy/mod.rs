//! One Envoy: it comes to the agent, so these tasks answer it rather than ask.
//!
//! - [`eds`]: from verdicts to endpoints.
//! - [`drains`]: the agent's own drains, which are words in the endpoints that Envoy is sent.

pub mod drains;
pub mod eds;
