//! Real servers, proxies and clients for the tests, the demo and the benchmarks.
//!
//! Not part of what an operator runs beside a proxy. The IAM stand-in is also a command of
//! its own, for trying a setup without AWS.
//!
//! # Layout
//! - [`process`]: free ports, starting and stopping real programs, waiting with a deadline

pub mod process;
