//! Envoy's admin interface: what it has taken, and how it is set up.
//!
//! Only read, never written to. Answers are read by key; zero values are left out of
//! them, what is not known is passed over, and nothing in them can make the agent fail.
//!
//! - [`client`]: the questions.
//! - [`answers`]: clusters, statistics and the server itself, as types.
//! - [`settings`]: of the whole configuration, what matters here.
//! - [`advice`]: settings that are not safe, and why.
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
