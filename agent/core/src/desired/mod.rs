//! The desired state: what each transport says about a server, from its one [`Verdict`].
//!
//! Agent checks, endpoint discovery, health checks and HTTP differ in what their callers do with
//! "I don't know" and with silence, so each has its own rule. All rules are here, side by side, and
//! pure: the I/O code maps the result to wire types and decides nothing.
//!
//! - [`agent_check()`]: HAProxy, which keeps the last word it was given.
//! - [`endpoints()`]: Envoy's endpoint discovery, which keeps the last endpoints.
//! - [`checks()`]: Envoy's active health checks, for clusters with fixed endpoints.
//! - [`role_check()`]: HTTP by instance and role, as Patroni answers it.
//!
//! Limits of age are in [`freshness`](crate::freshness).
//!
//! [`Verdict`]: crate::health::Verdict

mod agent_check;
mod checks;
mod endpoints;
mod role_check;

pub use agent_check::{AgentCheck, AgentHealth, agent_check};
pub use checks::{Awake, Check, CheckAnswer, WhileUnknown, checks};
pub use endpoints::{EndpointHealth, Member, endpoints};
pub use role_check::role_check;
