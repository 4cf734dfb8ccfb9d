//! HTTP interfaces for load balancers, monitoring and operators.
//!
//! - [`http`]: health by instance and role, metrics, state.
//! - [`status`]: the documented view of the state.
//! - [`control`]: the control socket, for the commands of an operator.
//! - [`tokens`]: the token socket, for programs that log in.
//! - [`bounded`]: a listener with a limit of connections and of time.

pub mod bounded;
pub mod control;
pub mod http;
pub mod status;
pub mod tokens;
