//! A stand-in, a proxy and the agent together, and clients of them.
//!
//! - [`haproxy`]: a real HAProxy, 2.6 or 2.8
//! - [`envoy`]: a real Envoy, with the configuration that users get
//! - [`scene`]: the stand-in, a proxy and the agent, set up together
//! - [`load`]: clients that count what breaks
//! - [`packets`]: paths that lose packets
//! - [`rds_api`]: RDS's API, by moto
//! - [`length`]: how long tests run
//! - `start`: what both proxies need to start

pub mod envoy;
pub mod haproxy;
pub mod length;
pub mod load;
pub mod packets;
pub mod rds_api;
pub mod scene;
mod start;
