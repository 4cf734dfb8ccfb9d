//! The one name server of a test: every name has the same address, which can be changed, unless it is
//! given one of its own.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex},
};

use tokio::net::UdpSocket;
use tokio_util::task::AbortOnDropHandle;

/// Answers while it exists.
pub struct NameServer {
    pub address: SocketAddr,
    answers: Arc<Mutex<Answers>>,
    _task: AbortOnDropHandle<()>,
}

struct Answers {
    all: Ipv4Addr,
    /// By the first label.
    own: BTreeMap<String, Ipv4Addr>,
}

impl NameServer {
    pub async fn answering(ip: Ipv4Addr) -> Self {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = socket.local_addr().unwrap();
        let answers = Arc::new(Mutex::new(Answers { all: ip, own: BTreeMap::new() }));
        let known = answers.clone();
        let task = tokio::spawn(async move {
            let mut buffer = [0; 512];
            while let Ok((length, from)) = socket.recv_from(&mut buffer).await {
                let reply = reply(&buffer[..length], &known.lock().unwrap());
                if let Some(reply) = reply {
                    let _ = socket.send_to(&reply, from).await;
                }
            }
        });
        Self { address, answers, _task: AbortOnDropHandle::new(task) }
    }

    pub fn answer(&self, ip: Ipv4Addr) {
        self.answers.lock().unwrap().all = ip;
    }

    /// Names that begin with this label have this address.
    pub fn answer_for(&self, label: &str, ip: Ipv4Addr) {
        self.answers.lock().unwrap().own.insert(label.to_owned(), ip);
    }
}

/// RFC 1035: one question, answered with one A record that is good for a second; any other
/// kind of record does not exist.
fn reply(query: &[u8], answers: &Answers) -> Option<Vec<u8>> {
    const HEADER: usize = 12;
    let name = query.get(HEADER..)?;
    let mut end = 0;
    while *name.get(end)? != 0 {
        end += usize::from(name[end]) + 1;
    }
    let kind_and_class = name.get(end + 1..end + 5)?;
    let is_a = kind_and_class == [0, 1, 0, 1];
    let label = String::from_utf8_lossy(name.get(1..=usize::from(*name.first()?))?);
    let ip = answers.own.get(&*label).copied().unwrap_or(answers.all);
    let mut reply = query[..2].to_vec();
    reply.extend([0x81, 0x80, 0, 1, 0, u8::from(is_a), 0, 0, 0, 0]);
    reply.extend(&name[..end + 5]);
    if is_a {
        reply.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 1, 0, 4]);
        reply.extend(ip.octets());
    }
    Some(reply)
}
