//! One message of the access log stream, parsed without decoding it as a whole.
//!
//! The first message has a description of Envoy with tens of kB that are not used, and a few hundred kB of
//! empty entries would take hundreds of MB when decoded at once. So only the frame is parsed here; each
//! entry is decoded alone.
//! Numbers are those of `envoy/service/accesslog/v3/als.proto`.

use super::{Event, Skipped, entry::from_grpc};
use crate::proto::{Message as _, TcpAccessLogEntry};

/// The most entries of one message. Envoy buffers 16 kB of entries by default, with more than 100 bytes each. A
/// message of very many tiny entries would take far more memory than its length.
const MAX_ENTRIES: usize = 512;

/// The maximum length of an entry, in bytes. Real entries of TCP sessions are far shorter.
const MAX_ENTRY: usize = 32 * 1024;

/// The maximum length of a `node.id`, in bytes.
const MAX_NODE: usize = 256;

#[derive(Debug, Default, PartialEq, Eq)]
pub struct Message {
    /// The `node.id` of the sender, in the first message of a stream; it may be empty.
    pub node: Option<String>,
    pub events: Vec<Event>,
    /// Entries without an event, with the reason.
    pub skipped: Vec<Skipped>,
}

/// The message cannot be parsed: the peer is not an Envoy.
#[derive(Copy, Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a message of Envoy's access log")]
pub struct NotAMessage;

impl Message {
    pub fn read(bytes: &[u8]) -> Result<Self, NotAMessage> {
        let mut message = Self::default();
        for field in Fields(bytes) {
            match field? {
                // identifier: Identifier
                (1, identifier) => message.node = Some(node(identifier)?),
                // http_logs: HTTPAccessLogEntries
                (2, _) => message.skipped.push(Skipped::NoKind),
                // tcp_logs: TCPAccessLogEntries, log_entry: TCPAccessLogEntry
                (3, entries) => {
                    for entry in Fields(entries) {
                        let (1, entry) = entry? else { continue };
                        if message.events.len() + message.skipped.len() >= MAX_ENTRIES {
                            return Err(NotAMessage);
                        }
                        match read_entry(entry) {
                            Ok(event) => message.events.push(event),
                            Err(skipped) => message.skipped.push(skipped),
                        }
                    }
                }
                _ => {}
            }
        }
        Ok(message)
    }
}

fn read_entry(entry: &[u8]) -> Result<Event, Skipped> {
    if entry.len() > MAX_ENTRY {
        return Err(Skipped::NotAnEntry);
    }
    from_grpc(&TcpAccessLogEntry::decode(entry).map_err(|_| Skipped::NotAnEntry)?)
}

/// `identifier.node.id`; empty where it is not set.
fn node(identifier: &[u8]) -> Result<String, NotAMessage> {
    let Some(node) = first(identifier)? else { return Ok(String::new()) };
    let Some(id) = first(node)? else { return Ok(String::new()) };
    let id = str::from_utf8(id).map_err(|_| NotAMessage)?;
    if id.len() > MAX_NODE { Err(NotAMessage) } else { Ok(id.to_owned()) }
}

/// The field with the number 1.
fn first(bytes: &[u8]) -> Result<Option<&[u8]>, NotAMessage> {
    for field in Fields(bytes) {
        if let (1, value) = field? {
            return Ok(Some(value));
        }
    }
    Ok(None)
}

/// The length-delimited fields of a message: number and bytes. Other fields are skipped.
struct Fields<'a>(&'a [u8]);

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u64, &'a [u8]), NotAMessage>;

    fn next(&mut self) -> Option<Self::Item> {
        while !self.0.is_empty() {
            match self.field() {
                Ok(None) => {}
                Ok(Some(field)) => return Some(Ok(field)),
                Err(error) => {
                    self.0 = &[];
                    return Some(Err(error));
                }
            }
        }
        None
    }
}

impl<'a> Fields<'a> {
    /// `None` is a field without a length.
    fn field(&mut self) -> Result<Option<(u64, &'a [u8])>, NotAMessage> {
        let key = self.varint().ok_or(NotAMessage)?;
        let value = match key & 7 {
            0 => self.varint().map(|_| None),
            1 => self.take(8).map(|_| None),
            2 => self
                .varint()
                .and_then(|length| usize::try_from(length).ok())
                .and_then(|length| self.take(length))
                .map(Some),
            5 => self.take(4).map(|_| None),
            // Groups do not exist in proto3.
            _ => None,
        };
        Ok(value.ok_or(NotAMessage)?.map(|value| (key >> 3, value)))
    }

    fn varint(&mut self) -> Option<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = *self.take(1)?.first()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Some(value);
            }
        }
        None
    }

    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::proto::{Node, StreamAccessLogsMessage, stream_access_logs_message as message};

    proptest! {
        #[test]
        fn any_bytes_are_accepted_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
            let _ = Message::read(&bytes);
        }

        #[test]
        fn the_frame_is_read_as_the_generated_code_writes_it(id in "[a-z0-9-]{0,40}", entries in 0..20_usize) {
            let node = Node { id: id.clone(), cluster: "rds".into(), ..Node::default() };
            let identifier = message::Identifier { node: Some(node), log_name: "sessions".into() };
            let tcp = message::TcpAccessLogEntries { log_entry: vec![TcpAccessLogEntry::default(); entries] };
            let whole = StreamAccessLogsMessage {
                identifier: Some(identifier),
                log_entries: Some(message::LogEntries::TcpLogs(tcp)),
            };
            let read = Message::read(&whole.encode_to_vec()).unwrap();
            prop_assert_eq!(read.node, Some(id));
            prop_assert_eq!(read.skipped.len(), entries);
        }
    }
}
