//! The rules, by subject.

mod clusters;
mod listeners;
mod process;
mod tls;

use super::model::Config;
use crate::rule::Rule;

/// All rules, in the order of the catalogue.
pub fn all() -> impl Iterator<Item = &'static Rule<Config>> {
    [process::RULES, tls::RULES, listeners::RULES, clusters::RULES].into_iter().flatten()
}

/// An example of a listener: its keys, those of its filter chain, and those of its TCP proxy.
macro_rules! listener {
    ($listener:literal, $chain:literal, $tcp:literal) => {
        concat!(
            "static_resources:\n  listeners:\n  - name: write\n    address: {socket_address: {address: 127.0.0.1, \
             port_value: 5432}}\n",
            $listener,
            "    filter_chains:\n    -",
            $chain,
            " filters:\n      - name: envoy.filters.network.tcp_proxy\n        typed_config:\n          cluster: \
             orders_write\n",
            $tcp
        )
    };
}

/// An example of a cluster.
macro_rules! cluster {
    ($keys:literal) => {
        concat!("static_resources:\n  clusters:\n  - name: orders_write\n", $keys)
    };
}

pub(crate) use {cluster, listener};
