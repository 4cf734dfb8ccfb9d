//! Endpoint discovery: which endpoints the clusters of an Envoy have, and which of
//! them take new sessions.
//!
//! - [`resources`](Snapshot): clusters and endpoints as Envoy's messages, with versions
//!   made of their content.
//! - [`subscription`](Subscription): what one stream asked for, was sent and took. Pure.
//! - [`server`](Server): the streams, fed by a watch of snapshots.
//! - [`peers`](Peers): who is connected, for people.
//!
//! Not here: where health and addresses come from.

mod peers;
mod resources;
mod server;
mod subscription;

pub use peers::{Peer, Peers, Protocol, Rejected};
pub use resources::{Cluster, Endpoint, Health, METADATA_KEY, METADATA_NAMESPACE, Snapshot};
pub use server::{Bounds, Event, Report, Server, Source, serve};
pub use subscription::{Heard, Incremental, Known, Push, Refused, StateOfTheWorld, Subscription};
