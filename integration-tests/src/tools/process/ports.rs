//! TCP ports that are free now.
//!
//! Nothing keeps others from taking one before its program does; on an address of the
//! loopback network that only this test uses, hardly anybody will.

use std::{
    fs, io,
    net::{IpAddr, Ipv4Addr, TcpListener},
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
        match same_port(addresses, port) {
            Ok(port) => return Ok(port),
            Err(error) => refused = error,
        }
    }
    Err(Error::Io { what: format!("find a port that is free on {addresses:?}"), source: refused })
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
