//! Active health checks that Envoy makes of the agent instead of its endpoints, for
//! clusters that are not discovered: STATIC, STRICT_DNS and LOGICAL_DNS.
//!
//! - [`endpoint`](named): which endpoint a check is about.
//! - [`answer`](Answer): what it is told, over HTTP.
//! - [`grpc`](Checks): the same over `grpc.health.v1`.
//! - [`source`](Source): what answers come from.
//! - [`waiting`](Waiting): a check that there is no answer to yet.
//!
//! A check fails only on positive evidence that new sessions must not go there. A check
//! that names nothing the agent knows passes: a typing error takes no database away.
//!
//! What Envoy does without an answer is its own: its hosts fail after the threshold. So
//! `close_connections_on_host_health_failure` does not go with these checks, and a cluster
//! to fall back to does.

mod answer;
mod endpoint;
mod grpc;
mod source;
mod waiting;

pub use answer::{Answer, DEGRADED, IMMEDIATE_FAILURE};
pub use endpoint::{HEADER, named};
pub use grpc::Checks;
pub use source::Source;
pub use waiting::Waiting;
