//! What the agent answers, all of it from the snapshot in memory.
//!
//! - [`agent_check`]: HAProxy's agent checks.
//! - [`http`]: health by instance and role, metrics, state.
//! - [`bounded`]: a listener with bounds, for HTTP.

pub mod agent_check;
pub mod bounded;
pub mod http;
