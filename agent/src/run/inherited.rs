//! Sockets that systemd opened before it started the agent (socket activation). While the agent restarts, checks wait in them
//! instead of being refused. A socket is used for the configured address that it is bound to; Unix sockets are not taken over.

use std::net::{SocketAddr, TcpListener};

use listenfd::ListenFd;

/// Inherited sockets. They stay open, as systemd keeps them open too: nothing else can bind their addresses.
#[derive(Default)]
pub(super) struct Inherited(Vec<TcpListener>);

// === impl Inherited ===

impl Inherited {
    pub(super) fn from_environment() -> Self {
        let mut sockets = ListenFd::from_env();
        let mut listeners = Vec::new();
        for index in 0..sockets.len() {
            match sockets.take_tcp_listener(index) {
                Ok(listener) => listeners.extend(listener),
                Err(error) => tracing::warn!(index, %error, "inherited socket is not TCP and is not used"),
            }
        }
        Self(listeners)
    }

    /// A copy of the socket that is bound to the address, for the start and for every reload.
    pub(super) fn take(&self, address: SocketAddr) -> Option<TcpListener> {
        let bound = |listener: &&TcpListener| listener.local_addr().is_ok_and(|bound| bound == address);
        self.0.iter().find(bound)?.try_clone().ok()
    }

    /// The addresses of the sockets that are not used: clients that connect there wait for nothing.
    pub(super) fn unused(&self, used: [SocketAddr; 2]) -> impl Iterator<Item = SocketAddr> + '_ {
        let addresses = self.0.iter().filter_map(|listener| listener.local_addr().ok());
        addresses.filter(move |address| !used.contains(address))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_is_taken_for_its_address_whenever_that_is_opened() {
        let [one, other] = [0, 0].map(|port| TcpListener::bind(("127.0.0.1", port)).unwrap());
        let (first, second) = (one.local_addr().unwrap(), other.local_addr().unwrap());
        let inherited = Inherited(vec![one, other]);
        for _ in 0..2 {
            assert_eq!(inherited.take(second).unwrap().local_addr().unwrap(), second);
        }
        let elsewhere = SocketAddr::from(([127, 0, 0, 2], second.port()));
        assert!(inherited.take(elsewhere).is_none());
        assert_eq!(inherited.unused([second, elsewhere]).collect::<Vec<_>>(), [first]);
    }
}
