//! What stands in front of the databases: a folder per kind of proxy.

pub mod envoy;
pub mod haproxy;
