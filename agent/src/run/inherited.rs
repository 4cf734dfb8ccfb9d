//! Sockets that systemd opened before it started the agent (socket activation). While the agent restarts, checks wait in them
//! instead of being refused. A socket is used for the configured address that it is bound to; Unix sockets are not taken over.

use std::net::{SocketAddr, TcpListener};

use listenfd::ListenFd;

/// Inherited sockets that are not in use.
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

    /// The socket that is bound to the address.
    pub(super) fn take(&mut self, address: SocketAddr) -> Option<TcpListener> {
        let index =
            self.0.iter().position(|listener| listener.local_addr().is_ok_and(|bound| bound == address))?;
        Some(self.0.swap_remove(index))
    }

    /// The addresses of the sockets that are left: clients that connect there wait for nothing.
    pub(super) fn addresses(&self) -> impl Iterator<Item = SocketAddr> + '_ {
        self.0.iter().filter_map(|listener| listener.local_addr().ok())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_is_taken_once_and_only_for_its_address() {
        let [one, other] = [0, 0].map(|port| TcpListener::bind(("127.0.0.1", port)).unwrap());
        let (first, second) = (one.local_addr().unwrap(), other.local_addr().unwrap());
        let mut inherited = Inherited(vec![one, other]);
        assert_eq!(inherited.take(second).unwrap().local_addr().unwrap(), second);
        assert!(inherited.take(second).is_none());
        assert_eq!(inherited.addresses().collect::<Vec<_>>(), [first]);
    }
}
