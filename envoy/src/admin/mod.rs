//! Envoy's admin interface: what Envoy accepted, and how it is configured.
//!
//! The agent only reads. Fields are found by key; zero values are omitted by Envoy, unknown ones are skipped, and
//! no answer can make the agent fail.
//!
//! - [`client`]: the requests.
//! - [`answers`]: clusters, statistics and the server itself, as types.
//! - [`settings`]: the relevant part of the configuration.
//! - [`advice`]: unsafe settings, and why.
//! - [`confirm`](mod@confirm): whether Envoy has what it was sent.

pub mod advice;
pub mod answers;
pub mod client;
pub mod confirm;
pub mod settings;

mod json;

pub use advice::{Advice, Rule, Setup, advise};
pub use answers::{Clusters, Host, HostHealth, ServerInfo, Stats};
pub use client::{Address, Admin, AdminError};
pub use confirm::{Difference, confirm};
pub use settings::Settings;
