//! Envoy: the endpoints and health checks that the agent serves, the access log that it receives, and the
//! admin interface that it reads.
//!
//! Types use Envoy's own terms; what they mean for sessions and servers is decided elsewhere.
//! Behaviour is as measured on 1.40.
//!
//! # Layout
//! - [`access_log`]: the sessions that the access log shows.
//! - [`admin`]: the admin interface: what Envoy accepted, and how it is configured.
//! - [`caller`](caller::Caller): who calls.
//! - [`eds`]: endpoint discovery.
//! - [`health`]: active health checks, answered by the agent.
//! - `permits`: fair limits, so that a flood from one caller takes nothing from the others.
//! - [`resolve`]: host names of endpoints to addresses.
//! - [`serve`]: the gRPC listener that Envoys connect to.
//! - [`proto`]: Envoy's messages and services, the only file that imports generated code.

pub mod access_log;
pub mod admin;
pub mod caller;
pub mod eds;
pub mod health;
mod permits;
pub mod proto;
pub mod resolve;
pub mod serve;
