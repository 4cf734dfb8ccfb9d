//! What the agent remembers across its own restarts, in its state directory.
//!
//! Small files, each written whole, synced and renamed into place:
//! - [`records`]: the drains it holds. Written *before* a drain is sent, so that
//!   whoever comes next (the agent, or `undrain --own`) can take it back.
//! - [`memory`]: the last proven health of each instance, so that a restart
//!   does not start from nothing.
//! - [`pause`]: whether an operator has paused all acting.
//! - [`log`]: how far an Envoy's access log has been read.
//!
//! No file holds a secret.

mod file;
mod lock;
pub mod log;
pub mod memory;
pub mod pause;
pub mod records;

pub use file::StateError;
pub use lock::StateLock;
