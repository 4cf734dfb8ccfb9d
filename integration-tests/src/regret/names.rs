//! The cluster's names by DNS, as RDS has them: the writer's name moves some time after a failover.

use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
};

use tokio::net::UdpSocket;
use tokio_util::task::AbortOnDropHandle;

/// Of every record, in seconds; as RDS has it.
const TTL: u8 = 5;

/// A name server on a free port of 127.0.0.1. Answers while it exists.
pub(super) struct NameServer {
    pub(super) address: SocketAddr,
    records: Arc<Mutex<BTreeMap<String, Vec<Ipv4Addr>>>>,
    _task: AbortOnDropHandle<()>,
}

impl NameServer {
    pub(super) async fn serve() -> io::Result<Self> {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = socket.local_addr()?;
        let records: Arc<Mutex<BTreeMap<String, Vec<Ipv4Addr>>>> = Arc::default();
        let known = records.clone();
        let task = tokio::spawn(async move {
            let mut buffer = [0; 512];
            // An error is a peer that is gone.
            loop {
                let Ok((length, from)) = socket.recv_from(&mut buffer).await else { continue };
                let query = buffer.get(..length).unwrap_or_default();
                let reply = reply(query, &known.lock().unwrap_or_else(PoisonError::into_inner));
                if let Some(reply) = reply {
                    let _ = socket.send_to(&reply, from).await;
                }
            }
        });
        Ok(Self { address, records, _task: AbortOnDropHandle::new(task) })
    }

    /// From now on `name` has these addresses.
    pub(super) fn set(&self, name: &str, addresses: impl IntoIterator<Item = SocketAddr>) {
        let v4 = addresses.into_iter().filter_map(|address| match address.ip() {
            IpAddr::V4(ip) => Some(ip),
            IpAddr::V6(_) => None,
        });
        let mut records = self.records.lock().unwrap_or_else(PoisonError::into_inner);
        records.insert(name.to_owned(), v4.collect());
    }
}

/// RFC 1035: one question; its A records, or none of any other kind.
fn reply(query: &[u8], records: &BTreeMap<String, Vec<Ipv4Addr>>) -> Option<Vec<u8>> {
    const HEADER: usize = 12;
    let question = query.get(HEADER..)?;
    let (mut labels, mut at) = (Vec::new(), 0);
    loop {
        let length = usize::from(*question.get(at)?);
        if length == 0 {
            break;
        }
        let label = question.get(at + 1..at + 1 + length)?;
        labels.push(String::from_utf8_lossy(label).to_ascii_lowercase());
        at += length + 1;
    }
    let kind_and_class = question.get(at + 1..at + 5)?;
    let addresses = records.get(&labels.join("."));
    let is_a = kind_and_class == [0, 1, 0, 1];
    let answers: &[Ipv4Addr] = addresses.filter(|_| is_a).map_or(&[], Vec::as_slice);
    let mut reply = query.get(..2)?.to_vec();
    let found = u8::try_from(answers.len()).ok()?;
    // 3 is NXDOMAIN.
    let code = if addresses.is_none() { 3 } else { 0 };
    reply.extend([0x81, 0x80 | code, 0, 1, 0, found, 0, 0, 0, 0]);
    reply.extend(question.get(..at + 5)?);
    for ip in answers {
        reply.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, TTL, 0, 4]);
        reply.extend(ip.octets());
    }
    Some(reply)
}
