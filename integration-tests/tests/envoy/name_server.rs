//! The one name server of a test: every name has the same address, which can be changed.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex},
};

use tokio::net::UdpSocket;
use tokio_util::task::AbortOnDropHandle;

/// Answers while it exists.
pub struct NameServer {
    pub address: SocketAddr,
    answer: Arc<Mutex<Ipv4Addr>>,
    _task: AbortOnDropHandle<()>,
}

impl NameServer {
    pub async fn answering(ip: Ipv4Addr) -> Self {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = socket.local_addr().unwrap();
        let answer = Arc::new(Mutex::new(ip));
        let answers = answer.clone();
        let task = tokio::spawn(async move {
            let mut buffer = [0; 512];
            while let Ok((length, from)) = socket.recv_from(&mut buffer).await {
                let ip = *answers.lock().unwrap();
                if let Some(reply) = reply(&buffer[..length], ip) {
                    let _ = socket.send_to(&reply, from).await;
                }
            }
        });
        Self { address, answer, _task: AbortOnDropHandle::new(task) }
    }

    pub fn answer(&self, ip: Ipv4Addr) {
        *self.answer.lock().unwrap() = ip;
    }
}

/// RFC 1035: one question, answered with one A record that is good for a second; any other
/// kind of record does not exist.
fn reply(query: &[u8], ip: Ipv4Addr) -> Option<Vec<u8>> {
    const HEADER: usize = 12;
    let name = query.get(HEADER..)?;
    let mut end = 0;
    while *name.get(end)? != 0 {
        end += usize::from(name[end]) + 1;
    }
    let kind_and_class = name.get(end + 1..end + 5)?;
    let is_a = kind_and_class == [0, 1, 0, 1];
    let mut reply = query[..2].to_vec();
    reply.extend([0x81, 0x80, 0, 1, 0, u8::from(is_a), 0, 0, 0, 0]);
    reply.extend(&name[..end + 5]);
    if is_a {
        reply.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 1, 0, 4]);
        reply.extend(ip.octets());
    }
    Some(reply)
}
