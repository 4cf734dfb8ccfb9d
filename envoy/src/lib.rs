//! What the agent knows of Envoy: the endpoints and health it serves, the access log
//! it reads, and the admin interface it asks.
//!
//! Types here are Envoy's own words; what they mean for sessions and servers is decided
//! elsewhere. Behaviour is as measured on 1.40.
//!
//! # Layout
//! - [`access_log`]: the sessions, as the access log tells of them.
//! - [`admin`]: the admin interface: what Envoy has taken, and how it is set up.
//! - [`eds`]: endpoint discovery.
//! - [`health`]: active health checks, answered by the agent.
//! - `places`: what callers share, so that a flood of some takes nothing from the others.
//! - [`resolve`]: names of endpoints to addresses.
//! - [`serve`]: the gRPC listener that Envoys call.
//! - [`proto`]: Envoy's messages and services, the one file that imports generated code.

pub mod access_log;
pub mod admin;
pub mod eds;
pub mod health;
mod places;
pub mod proto;
pub mod resolve;
pub mod serve;
