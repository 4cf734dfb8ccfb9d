//! What the agent knows of Envoy: the endpoints and health it serves, the access log
//! it reads, and the admin interface it asks.
//!
//! Types here are Envoy's own words; what they mean for sessions and servers is decided
//! elsewhere. Behaviour is as measured on 1.40.
//!
//! # Layout
//! - [`proto`]: Envoy's messages and services, the one file that imports generated code.

pub mod proto;
