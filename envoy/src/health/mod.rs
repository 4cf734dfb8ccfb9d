//! Active health checks that Envoy sends to the agent instead of its endpoints, for clusters without
//! endpoint discovery: STATIC, STRICT_DNS and LOGICAL_DNS.
//!
//! - [`endpoint`](named): the endpoint that a check names.
//! - [`answer`](Answer): the answer over HTTP.
//! - [`grpc`](Checks): the same over `grpc.health.v1`.
//! - [`source`](Source): the source of answers.
//! - [`waiting`](Waiting): checks without an answer yet.
//!
//! A check fails only on positive evidence that new sessions must not go there. A check of an unknown
//! name passes: a typing error does not remove a database.
//!
//! Without an answer, Envoy fails its hosts after the threshold. So these checks need a cluster to fall back
//! to, and must not be combined with `close_connections_on_host_health_failure`.

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
