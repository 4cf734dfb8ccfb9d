//! The sockets on which HAProxy's log arrives. They outlive reloads: a datagram that finds no socket is lost.

use std::{
    collections::HashMap,
    io,
    os::unix::fs::{FileTypeExt, PermissionsExt},
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

use haproxy::log::Sequences;
use tokio::{
    net::{UdpSocket, UnixDatagram},
    sync::Mutex as AsyncMutex,
};

use crate::config::LogAddress;

/// The kernel's buffer, as far as the system allows it (`net.core.rmem_max`): at 20,000 lines a second, a quarter of a
/// second and more.
const BUFFER: usize = 4 << 20;

/// By address. Clones are the same sockets.
#[derive(Clone, Debug, Default)]
pub struct Sockets(Arc<Mutex<HashMap<LogAddress, Arc<AsyncMutex<LogSocket>>>>>);

#[derive(Debug)]
pub struct LogSocket {
    kind: Kind,
    /// The numbers of the lines so far.
    pub sequences: Sequences,
}

#[derive(Debug)]
enum Kind {
    Udp(UdpSocket),
    /// With the path, which is removed with the socket.
    Unix(UnixDatagram, Box<Path>),
}

impl Sockets {
    /// The socket of an address, open since before or opened now.
    ///
    /// # Errors
    /// It cannot be opened.
    pub fn open(&self, address: &LogAddress) -> io::Result<Arc<AsyncMutex<LogSocket>>> {
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(socket) = open.get(address) {
            return Ok(socket.clone());
        }
        let socket = Arc::new(AsyncMutex::new(LogSocket::open(address)?));
        open.insert(address.clone(), socket.clone());
        Ok(socket)
    }

    /// Closes the sockets of other addresses, as soon as the tasks that read them have ended.
    pub fn keep_only(&self, addresses: &[LogAddress]) {
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        open.retain(|address, _| addresses.contains(address));
    }
}

impl LogSocket {
    fn open(address: &LogAddress) -> io::Result<Self> {
        let kind = match address {
            LogAddress::Udp(address) => {
                let socket = std::net::UdpSocket::bind(address)?;
                // A smaller buffer is no error: lost lines are counted.
                let _ = rustix::net::sockopt::set_socket_recv_buffer_size(&socket, BUFFER);
                socket.set_nonblocking(true)?;
                Kind::Udp(UdpSocket::from_std(socket)?)
            }
            LogAddress::Unix(path) => Kind::Unix(bind(path)?, path.as_path().into()),
        };
        Ok(Self { kind, sequences: Sequences::default() })
    }

    /// Waits for a datagram.
    ///
    /// # Errors
    /// The socket failed.
    pub async fn readable(&self) -> io::Result<()> {
        match &self.kind {
            Kind::Udp(socket) => socket.readable().await,
            Kind::Unix(socket, _) => socket.readable().await,
        }
    }

    /// Takes a datagram, of which the buffer holds the beginning.
    ///
    /// # Errors
    /// `WouldBlock` if there is none.
    pub fn try_recv(&self, buffer: &mut [u8]) -> io::Result<usize> {
        match &self.kind {
            Kind::Udp(socket) => socket.try_recv(buffer),
            Kind::Unix(socket, _) => socket.try_recv(buffer),
        }
    }
}

impl Drop for LogSocket {
    fn drop(&mut self) {
        if let Kind::Unix(_, path) = &self.kind {
            let _ = std::fs::remove_file(path);
        }
    }
}

/// Binds a socket that HAProxy's user may write to by the group of the directory, and replaces one that no process reads.
fn bind(path: &Path) -> io::Result<UnixDatagram> {
    if let Ok(metadata) = std::fs::symlink_metadata(path) {
        if !metadata.file_type().is_socket() {
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, "the path exists and is not a socket"));
        }
        if std::os::unix::net::UnixDatagram::unbound()?.connect(path).is_ok() {
            return Err(io::Error::new(io::ErrorKind::AddrInUse, "another process reads there"));
        }
        std::fs::remove_file(path)?;
    }
    let socket = UnixDatagram::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660))?;
    Ok(socket)
}
