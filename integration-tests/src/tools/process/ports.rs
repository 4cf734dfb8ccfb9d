//! TCP ports that are free now.
//!
//! Tests do not choose the same ones. Nothing keeps other programs from taking one before its own does.

use std::{
    fs, io,
    net::{IpAddr, Ipv4Addr, TcpListener},
    os::{
        linux::net::SocketAddrExt,
        unix::net::{SocketAddr, UnixDatagram},
    },
    sync::{Mutex, PoisonError},
};

use super::Error;

/// A TCP port that is free now on the loopback address 127.0.0.1.
pub fn free_port() -> Result<u16, Error> {
    free_port_on(&[IpAddr::V4(Ipv4Addr::LOCALHOST)])
}

/// Well-known servers are below it.
const LOWEST: u16 = 12_000;

/// One TCP port that is free now on every one of the addresses.
///
/// It is below those that the kernel gives to clients: one of those may be taken by an outgoing connection before
/// the server that wants it listens.
pub fn free_port_on(addresses: &[IpAddr]) -> Result<u16, Error> {
    const TRIES: usize = 50;
    let clients = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let first = clients.split_whitespace().next().and_then(|first| first.parse().ok()).unwrap_or(32_768);
    let mut refused = io::Error::other("no address given");
    for _ in 0..TRIES {
        // 0 leaves the choice to the kernel.
        let port = if first > LOWEST + 1_000 { fastrand::u16(LOWEST..first) } else { 0 };
        match same_port(addresses, port).and_then(reserved) {
            Ok(port) => return Ok(port),
            Err(error) => refused = error,
        }
    }
    Err(Error::Io { what: format!("find a port that is free on {addresses:?}"), source: refused })
}

/// Keeps other tests, in this process and in others, from choosing the port until this process ends: an abstract
/// socket has one owner and leaves nothing behind.
fn reserved(port: u16) -> io::Result<u16> {
    static HELD: Mutex<Vec<UnixDatagram>> = Mutex::new(Vec::new());
    let name = SocketAddr::from_abstract_name(format!("rds-lb-agent test port {port}"))?;
    let held = UnixDatagram::bind_addr(&name)?;
    HELD.lock().unwrap_or_else(PoisonError::into_inner).push(held);
    Ok(port)
}

fn same_port(addresses: &[IpAddr], mut port: u16) -> io::Result<u16> {
    // All are held until the last is found, so that they are free together.
    let mut held = Vec::with_capacity(addresses.len());
    for address in addresses {
        let listener = TcpListener::bind((*address, port))?;
        port = listener.local_addr()?.port();
        held.push(listener);
    }
    Ok(port)
}
