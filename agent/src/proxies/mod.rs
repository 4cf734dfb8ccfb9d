//! What stands in front of the databases: a folder per kind of proxy.
//! [`journal`]: failed sessions of all of them.

pub mod envoy;
pub mod haproxy;
pub mod journal;
