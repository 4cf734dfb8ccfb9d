//! Streams and packets for the tests of this protocol.

use std::{future::Future, io::Cursor, pin::Pin};

use tokio::io::{AsyncRead, AsyncWrite, Join, join, sink};

pub(in crate::mysql) fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

/// A stream that yields these bytes, then ends, and discards writes.
pub(in crate::mysql) fn feed(bytes: &[u8]) -> impl AsyncRead + AsyncWrite + Unpin + use<> {
    let reader: Pin<Box<Cursor<Vec<u8>>>> = Box::pin(Cursor::new(bytes.to_vec()));
    let stream: Join<_, _> = join(reader, sink());
    stream
}

pub(in crate::mysql) fn packet(number: u8, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_le_bytes();
    [&length[..3], &[number], payload].concat()
}

/// A greeting with constant salts; `salt` is their total size.
pub(in crate::mysql) fn greeting(version: &str, capabilities: u32, salt: u8, plugin: &str) -> Vec<u8> {
    use super::greeting::capability;

    let mut packet = vec![10];
    packet.extend_from_slice(version.as_bytes());
    packet.extend_from_slice(&[0, 7, 0, 0, 0]);
    packet.extend_from_slice(&[1; 8]);
    packet.push(0);
    let [a, b, c, d] = capabilities.to_le_bytes();
    packet.extend_from_slice(&[a, b, 45, 2, 0, c, d, salt]);
    packet.extend_from_slice(&[0; 10]);
    if capabilities & capability::SECURE_CONNECTION != 0 {
        packet.extend(std::iter::repeat_n(2, usize::from(salt).saturating_sub(8).max(13)));
    }
    if capabilities & capability::PLUGIN_AUTH != 0 {
        packet.extend_from_slice(plugin.as_bytes());
        packet.push(0);
    }
    packet
}
