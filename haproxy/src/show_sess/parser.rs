//! Bytes in, entries out: partial lines wait, rubbish is skipped, nothing grows
//! beyond one line and one entry.

use std::net::{IpAddr, SocketAddr};

use jiff::civil::DateTime;
use memchr::memchr;

/// No line of the real format comes near this.
const MAX_LINE: usize = 4_096;

/// One entry of the dump: a client's session, or one of HAProxy's own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Entry {
    /// The pointer, as printed.
    pub pointer: String,
    /// The accept date, as printed.
    pub accepted: String,
    /// The accept date, read.
    pub date: Option<DateTime>,
    /// The `id=` field.
    pub id: Option<u64>,
    /// `source=`, where it is an address.
    pub source: Option<SocketAddr>,
    /// `frontend=`.
    pub frontend: String,
    /// `backend=`.
    pub backend: String,
    /// `server=`.
    pub server: String,
    /// The `addr=` on the `backend=` line.
    pub outgoing: Option<SocketAddr>,
    /// The `addr=` on the `server=` line.
    pub peer: Option<SocketAddr>,
}

/// The parser of one dump.
#[derive(Debug, Default)]
pub struct Parser {
    /// The beginning of a line whose end has not come yet.
    line: Vec<u8>,
    entry: Option<Entry>,
    bytes: u64,
}

impl Parser {
    /// A parser at the beginning of a dump.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes in bytes; hands out each entry that they complete.
    pub fn push(&mut self, bytes: &[u8], mut out: impl FnMut(Entry)) {
        self.bytes += bytes.len() as u64;
        let mut rest = bytes;
        while let Some(end) = memchr(b'\n', rest) {
            let (line, after) = rest.split_at(end);
            rest = after.get(1..).unwrap_or_default();
            if self.line.is_empty() {
                self.read(line, &mut out);
            } else {
                self.hold(line);
                let mut whole = std::mem::take(&mut self.line);
                self.read(&whole, &mut out);
                whole.clear();
                self.line = whole;
            }
        }
        self.hold(rest);
    }

    /// Keeps the beginning of a line; of one that is too long, as much as shows that it is.
    fn hold(&mut self, bytes: &[u8]) {
        let room = (MAX_LINE + 1).saturating_sub(self.line.len());
        self.line.extend_from_slice(bytes.get(..room.min(bytes.len())).unwrap_or_default());
    }

    /// The end of the dump: the last entry. A line without its end is not read: half
    /// an address would be another address.
    pub fn finish(self) -> Option<Entry> {
        self.entry
    }

    /// How many bytes it has seen.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    fn read(&mut self, line: &[u8], out: &mut impl FnMut(Entry)) {
        let text = || if line.len() > MAX_LINE { None } else { str::from_utf8(line).ok() };
        if line.starts_with(b"0x") {
            // One that cannot be read ends the entry before, too: the lines after are not its own.
            let before = std::mem::replace(&mut self.entry, text().and_then(header));
            before.into_iter().for_each(out);
            return;
        }
        // Only three keys matter, each at the start of an indented line.
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

/// `22/Nov/2026:14:48:48.312877`
fn date(text: &str) -> Option<DateTime> {
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let (day, rest) = text.split_once('/')?;
    let (month, rest) = rest.split_once('/')?;
    let (year, time) = rest.split_once(':')?;
    let month = MONTHS.iter().position(|name| *name == month)? + 1;
    let (clock, micros) = time.split_once('.')?;
    let mut clock = clock.split(':').map(|part| part.parse::<i8>().ok());
    let (hour, minute, second) = (clock.next()??, clock.next()??, clock.next()??);
    let micros: i32 = micros.get(..6)?.parse().ok()?;
    DateTime::new(
        year.parse().ok()?,
        i8::try_from(month).ok()?,
        day.parse().ok()?,
        hour,
        minute,
        second,
        micros.checked_mul(1_000)?,
    )
    .ok()
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
    fn a_line_without_an_end_is_not_kept() {
        let mut parser = Parser::new();
        for _ in 0..1_000 {
            parser.push(&[b'x'; 10_000], |_| ());
        }
        assert!(parser.line.capacity() <= 4 * MAX_LINE);
        assert_eq!(parser.bytes(), 10_000_000);
    }
}
