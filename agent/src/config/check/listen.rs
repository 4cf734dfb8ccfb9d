//! The addresses that the agent listens on.

use std::net::SocketAddr;

use serde_saphyr::Location;

use super::{
    super::{
        Address, Listen, Problem,
        file::{self, At},
    },
    Check,
};

impl Check {
    pub(super) fn listen(&mut self, file: &file::Listen, envoy: bool) -> Option<Listen> {
        let remote = file.allow_remote.unwrap_or(false);
        let agent_check = self.listener(file.agent_check.as_ref(), 7878, remote);
        let http = self.listener(file.http.as_ref(), 7879, remote);
        let control = self.path(file.control.as_ref(), "/run/rds-lb-agent/control.sock");
        if agent_check.is_some() && agent_check == http && agent_check.is_some_and(|one| one.port() != 0) {
            let at = file.http.as_ref().or(file.agent_check.as_ref());
            let problem = Problem::at(
                at.map_or(Location::UNKNOWN, At::location),
                "`agent_check` and `http` have the same address",
            );
            self.problem(problem.hint("give each its own port"));
        }
        let envoy = envoy.then(|| self.envoy_listener(file.envoy.as_ref(), remote));
        Some(Listen {
            agent_check: agent_check?,
            http: http?,
            envoy: envoy.map_or(Some(None), |address| address.map(Some))?,
            control: control?,
            tokens: None,
        })
    }

    /// The agent replaces a socket file on which no process listens, so it must not be a file of the proxy.
    pub(super) fn own_sockets(&mut self, file: &file::File) {
        let proxies = file.proxies.iter().filter_map(|proxy| proxy.value().haproxy.as_ref());
        let sockets: Vec<&str> = proxies
            .flat_map(|haproxy| [Some(&haproxy.socket), haproxy.master.as_ref(), haproxy.log.as_ref()])
            .flatten()
            .map(|socket| socket.value().as_str())
            .collect();
        let tokens = file.token_socket.as_ref().map(|socket| &socket.path);
        let own: Vec<_> = [file.listen.control.as_ref(), file.listen.envoy.as_ref(), tokens]
            .into_iter()
            .flatten()
            .collect();
        for (index, own_socket) in own.iter().enumerate() {
            if own.iter().take(index).any(|other| other.value() == own_socket.value()) {
                let problem = Problem::at(own_socket.location(), "two sockets of the agent have this path");
                self.problem(problem.hint("give each its own path"));
            }
        }
        for own in own {
            if sockets.contains(&own.value().as_str()) {
                let problem = Problem::at(own.location(), "this is a socket of HAProxy, or for its log");
                self.problem(problem.hint("the agent listens on sockets of its own"));
            }
        }
    }

    fn envoy_listener(&mut self, at: Option<&At<String>>, remote: bool) -> Option<Address> {
        match at {
            None => Some(Address::Unix("/run/rds-lb-agent/envoy.sock".into())),
            Some(path) if path.value().starts_with('/') => Some(Address::Unix(path.value().into())),
            Some(_) => self.listener(at, 7880, remote).map(|address| Address::Tcp(address.to_string())),
        }
    }

    pub(super) fn listener(
        &mut self,
        at: Option<&At<String>>,
        port: u16,
        remote: bool,
    ) -> Option<SocketAddr> {
        let Some(at) = at else { return Some(SocketAddr::from(([127, 0, 0, 1], port))) };
        let Ok(address) = at.value().parse::<SocketAddr>() else {
            let hint = format!("write an address and a port, like 127.0.0.1:{port}");
            self.problem(
                Problem::at(at.location(), format!("`{}` is not an address", at.value())).hint(hint),
            );
            return None;
        };
        if !address.ip().is_loopback() && !remote {
            let hint = "the port is not authenticated; set `allow_remote: true` if the network is protected";
            let message = format!("other hosts can reach {address}");
            self.problem(Problem::at(at.location(), message).hint(hint));
        }
        Some(address)
    }
}
