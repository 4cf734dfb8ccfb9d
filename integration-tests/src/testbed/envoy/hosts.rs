//! An endpoint in Envoy's `/clusters`.

use std::net::SocketAddr;

use serde_json::Value;

/// An endpoint of a cluster as Envoy has it now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    pub address: SocketAddr,
    /// What EDS says: `HEALTHY`, `DRAINING`, …
    pub eds: String,
    /// Whether the active health check fails.
    pub check_fails: bool,
    /// Whether it is not even counted among the endpoints of its cluster, because a check failed at once.
    pub excluded: bool,
    /// Whether the active health check, or EDS, prefers others to it.
    pub degraded: bool,
    /// Sessions that it has now.
    pub active: u64,
    /// Sessions that it ever got, since it was last added: one that was removed and came
    /// back begins again.
    pub total: u64,
}

impl Host {
    /// All of a cluster, in the order of their addresses, out of `/clusters?format=json`.
    pub(super) fn of(cluster: &str, answer: &Value) -> Vec<Self> {
        let clusters = answer.get("cluster_statuses").and_then(Value::as_array).into_iter().flatten();
        let found = clusters.filter(|status| status.get("name").is_some_and(|name| name == cluster));
        let hosts = found.filter_map(|status| status.get("host_statuses")?.as_array()).flatten();
        let mut hosts: Vec<Self> = hosts.filter_map(Self::parse).collect();
        hosts.sort_by_key(|host| host.address);
        hosts
    }

    fn parse(status: &Value) -> Option<Self> {
        let text = |pointer: &str| status.pointer(pointer)?.as_str();
        let address = status.pointer("/address/socket_address")?;
        let port = u16::try_from(address.get("port_value")?.as_u64()?).ok()?;
        let counts = status.get("stats").and_then(Value::as_array);
        // Zero is left out.
        let count = |name: &str| {
            let mut counts = counts.into_iter().flatten();
            let found = counts.find(|count| count.get("name").is_some_and(|known| known == name));
            found.and_then(|count| count.get("value")?.as_str()?.parse().ok()).unwrap_or(0)
        };
        Some(Self {
            address: SocketAddr::new(address.get("address")?.as_str()?.parse().ok()?, port),
            eds: text("/health_status/eds_health_status").unwrap_or("HEALTHY").to_owned(),
            check_fails: status.pointer("/health_status/failed_active_health_check").is_some(),
            excluded: status.pointer("/health_status/excluded_via_immediate_hc_fail").is_some(),
            degraded: status.pointer("/health_status/failed_active_degraded_check").is_some(),
            active: count("cx_active"),
            total: count("cx_total"),
        })
    }
}
