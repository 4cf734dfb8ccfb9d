//! The access log, which shows Envoy's sessions.
//!
//! Envoy's admin interface cannot list sessions. The access log has entries for the start, the connection and the
//! end of each, and one in every `access_log_flush_interval`.
//!
//! - [`entry`]: one entry, from gRPC or from the file log, as one [`Event`].
//! - [`flags`]: response flags.
//! - [`handoff`]: failures between client and database server.
//! - [`sessions`]: the table of live sessions, built from events.
//! - [`service`]: the gRPC service that receives the log.
//! - [`file`](mod@file): the end of the file log, for entries from before a restart of the agent.

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
