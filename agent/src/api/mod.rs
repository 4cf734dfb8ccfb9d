//! What people and their tools ask over HTTP.
//!
//! - [`http`]: health by instance and role, metrics, state.
//! - [`control`]: the control socket, through which operators change something.
//! - [`bounded`]: a listener with bounds.

pub mod bounded;
pub mod control;
pub mod http;
