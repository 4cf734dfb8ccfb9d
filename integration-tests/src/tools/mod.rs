//! What the stand-in, the testbed and the benchmarks are made with.
//!
//! - [`process`]: free ports, starting and stopping real programs, waiting with a deadline
//! - `guardian`: a process that stops what a killed test leaves behind
//! - [`mysql`]: a small MySQL client
//! - [`tls`]: verified TLS for `tokio-postgres` clients

pub(crate) mod guardian;
pub mod mysql;
pub mod process;
pub mod tls;
