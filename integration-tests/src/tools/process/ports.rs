//! TCP ports that are free now.
//!
//! Nothing keeps others from taking one before its program does; on an address of the
//! loopback network that only this test uses, hardly anybody will.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, TcpListener},
};

use super::Error;

/// A TCP port that is free now on the loopback address 127.0.0.1.
pub fn free_port() -> Result<u16, Error> {
    free_port_on(&[IpAddr::V4(Ipv4Addr::LOCALHOST)])
}

/// One TCP port that is free now on every one of the addresses.
pub fn free_port_on(addresses: &[IpAddr]) -> Result<u16, Error> {
    const TRIES: usize = 50;
    let mut refused = io::Error::other("no address given");
    for _ in 0..TRIES {
        match same_port(addresses) {
            Ok(port) => return Ok(port),
            Err(error) => refused = error,
        }
    }
    Err(Error::Io { what: format!("find a port that is free on {addresses:?}"), source: refused })
}

fn same_port(addresses: &[IpAddr]) -> io::Result<u16> {
    let mut port = 0;
    // All are held until the last is found, so that they are free together.
    let mut held = Vec::with_capacity(addresses.len());
    for address in addresses {
        let listener = TcpListener::bind((*address, port))?;
        port = listener.local_addr()?.port();
        held.push(listener);
    }
    Ok(port)
}
