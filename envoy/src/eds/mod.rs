//! Endpoint discovery: the endpoints of an Envoy's clusters, and which of them take new sessions.
//!
//! - [`resources`](Snapshot): clusters and endpoints as Envoy's messages, with versions derived from
//!   their content.
//! - [`waiting_room`](WaitingRooms): what clients meet while no endpoint of a cluster takes sessions.
//! - [`subscription`](Subscription): what one stream asked for, was sent and accepted. Pure.
//! - [`server`](Server): the streams, fed by a watch of snapshots.
//! - [`peers`](Peers): who is connected, for display.
//!
//! Not here: where health and addresses come from.

mod peers;
mod resources;
mod server;
mod subscription;
pub mod waiting_room;

pub use peers::{Peer, Peers, Protocol, Rejected};
pub use resources::{Cluster, Endpoint, Health, METADATA_KEY, METADATA_NAMESPACE, Snapshot};
pub use server::{Bounds, Event, Report, Server, Source, serve};
pub use subscription::{Heard, Incremental, Known, Push, Refused, StateOfTheWorld, Subscription};
pub use waiting_room::WaitingRooms;
