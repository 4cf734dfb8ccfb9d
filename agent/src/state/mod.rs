//! Files in the state directory, which survive restarts of the agent.
//!
//! Each file is small, written as a whole, synced and renamed into place:
//! - [`records`]: the drains of the agent. Written *before* a drain is sent, so that the next agent or
//!   `release` can take it back.
//! - [`downs`]: the servers that are DOWN by the agent's answers.
//! - [`memory`]: the last proven role of each instance.
//! - [`pause`]: whether an operator has paused the agent.
//! - [`log`]: the read position in the access log of an Envoy.
//!
//! No file holds a secret.

pub mod downs;
mod file;
mod lock;
pub mod log;
pub mod memory;
pub mod pause;
pub mod records;
pub mod server_state;

pub use file::StateError;
pub use lock::StateLock;
