//! Bytes in, entries out. Memory is bounded by one line and one entry.

use std::net::{IpAddr, SocketAddr};

use jiff::civil::DateTime;
use memchr::memchr;

/// The maximum length of a line, in bytes; longer ones are skipped. Real lines are far shorter.
const MAX_LINE: usize = 4_096;

/// One entry of the dump: a client's session, or a connection to HAProxy itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Entry {
    pub pointer: String,
    /// The accept date as printed.
    pub accepted: String,
    /// The accept date, if it could be parsed.
    pub date: Option<DateTime>,
    pub id: Option<u64>,
    /// `None` for a Unix socket.
    pub source: Option<SocketAddr>,
    pub frontend: String,
    pub backend: String,
    pub server: String,
    /// The `addr=` on the `backend=` line.
    pub outgoing: Option<SocketAddr>,
    /// The `addr=` on the `server=` line.
    pub peer: Option<SocketAddr>,
}

#[derive(Debug, Default)]
pub struct Parser {
    /// The beginning of an incomplete line.
    line: Vec<u8>,
    entry: Option<Entry>,
    bytes: u64,
}

impl Parser {
    pub fn new() -> Self {
        Self::default()
    }

    /// Parses the next bytes, and passes on each entry that they complete.
    pub fn push(&mut self, bytes: &[u8], mut out: impl FnMut(Entry)) {
        self.bytes += bytes.len() as u64;
        let mut rest = bytes;
        while let Some(end) = memchr(b'\n', rest) {
            let (line, after) = rest.split_at(end);
            rest = after.get(1..).unwrap_or_default();
            if self.line.is_empty() {
                self.read(line, &mut out);
            } else {
                self.keep(line);
                let mut line = std::mem::take(&mut self.line);
                self.read(&line, &mut out);
                line.clear();
                self.line = line;
            }
        }
        self.keep(rest);
    }

    /// Keeps the beginning of a line, up to one byte more than the maximum.
    fn keep(&mut self, bytes: &[u8]) {
        let room = (MAX_LINE + 1).saturating_sub(self.line.len());
        self.line.extend_from_slice(bytes.get(..room.min(bytes.len())).unwrap_or_default());
    }

    /// Ends the dump and returns the last entry. An incomplete line is ignored: half an address would be
    /// another address.
    pub fn finish(self) -> Option<Entry> {
        self.entry
    }

    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    fn read(&mut self, line: &[u8], out: &mut impl FnMut(Entry)) {
        let text = || if line.len() > MAX_LINE { None } else { str::from_utf8(line).ok() };
        if line.starts_with(b"0x") {
            // An unreadable header also ends the previous entry: the next lines are not of that one.
            let before = std::mem::replace(&mut self.entry, text().and_then(header));
            before.into_iter().for_each(out);
            return;
        }
        // Three keys are used, each at the start of an indented line.
        let Some(entry) = &mut self.entry else { return };
        let Some(field) = line.strip_prefix(b"  ") else { return };
        if !(field.starts_with(b"frontend=")
            || field.starts_with(b"backend=")
            || field.starts_with(b"server="))
        {
            return;
        }
        let Some(text) = text() else { return };
        let mut words = text.trim_start().split(' ');
        let Some((key, name)) = words.next().and_then(|word| word.split_once('=')) else { return };
        let address =
            || words.clone().filter_map(|word| word.strip_prefix("addr=")).next_back().and_then(socket);
        match key {
            "frontend" => name.clone_into(&mut entry.frontend),
            "backend" => (entry.backend, entry.outgoing) = (name.to_owned(), address()),
            "server" => (entry.server, entry.peer) = (name.to_owned(), address()),
            _ => {}
        }
    }
}

/// `0x7f2cebf2c800: [22/Nov/2026:14:48:48.312877] id=0 proto=tcpv4 source=127.0.0.1:55052`
fn header(line: &str) -> Option<Entry> {
    let (pointer, rest) = line.split_once(": [")?;
    let (accepted, rest) = rest.split_once(']')?;
    let mut entry = Entry {
        pointer: pointer.to_owned(),
        accepted: accepted.to_owned(),
        date: date(accepted),
        ..Entry::default()
    };
    for word in rest.split(' ') {
        if let Some(id) = word.strip_prefix("id=") {
            entry.id = id.parse().ok();
        } else if let Some(source) = word.strip_prefix("source=") {
            entry.source = socket(source);
        }
    }
    Some(entry)
}

/// Like `22/Nov/2026:14:48:48.312877`.
fn date(text: &str) -> Option<DateTime> {
    DateTime::strptime("%d/%b/%Y:%H:%M:%S%.f", text).ok()
}

/// `ADDRESS:PORT`; an IPv6 address is printed without brackets.
fn socket(text: &str) -> Option<SocketAddr> {
    let (ip, port) = text.trim_end_matches(',').rsplit_once(':')?;
    let ip: IpAddr = ip.trim_start_matches('[').trim_end_matches(']').parse().ok()?;
    Some(SocketAddr::new(ip.to_canonical(), port.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_bounded_for_a_line_without_an_end() {
        let mut parser = Parser::new();
        for _ in 0..1_000 {
            parser.push(&[b'x'; 10_000], |_| ());
        }
        assert!(parser.line.capacity() <= 4 * MAX_LINE);
        assert_eq!(parser.bytes(), 10_000_000);
    }
}
