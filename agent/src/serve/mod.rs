//! What the agent answers, all of it from the snapshot in memory.
//!
//! - [`agent_check`]: HAProxy's agent checks.
//! - [`http`]: health by instance and role, metrics, state.
//! - [`xds`]: endpoint discovery and all else that Envoys call.
//! - [`checks`]: active health checks of Envoys.
//! - [`bounded`]: a listener with bounds, for HTTP.

pub mod agent_check;
pub mod bounded;
pub mod checks;
pub mod http;
pub mod xds;
