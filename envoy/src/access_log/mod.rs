//! The access log: what Envoy tells of its sessions.
//!
//! Envoy's admin interface can list no session; its access log tells of each one's
//! start, connection, life (every `access_log_flush_interval`) and end.
//!
//! - [`entry`]: one entry, from gRPC or from the file log, as one [`Event`].
//! - [`flags`]: response flags.
//! - [`handoff`]: what went wrong between client and database server.
//! - [`sessions`]: the table of live sessions that events add up to.
//! - [`service`]: the gRPC service that Envoys stream their log to.
//! - [`file`](mod@file): the tail of the file log, for what was missed meanwhile.

pub mod entry;
pub mod file;
pub mod flags;
pub mod handoff;
mod message;
mod origin;
pub mod service;
pub mod sessions;

pub use entry::{Event, Kind, Skipped};
pub use file::{Position, Tail};
pub use flags::Flags;
pub use handoff::HandOff;
pub use origin::Origin;
pub use service::{Bounds, Gate, Intake, Report, Server, service};
pub use sessions::{Limits, Session, Sessions};
