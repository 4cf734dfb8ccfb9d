//! From a datagram to a line: the syslog header is skipped, and the format recognized.

use std::{net::SocketAddr, time::Duration};

use super::{MARK, State, fields, tcplog};

/// Longer datagrams are not read, in bytes. HAProxy cuts its lines at 1,024 bytes unless `len` says otherwise.
pub const MAX_LINE: usize = 4_096;

/// What HAProxy logs beside sessions begins with one of these.
const NOTICES: [&str; 9] = [
    "Server ",
    "Backup Server ",
    "Proxy ",
    "backend ",
    "Health check ",
    "Agent check ",
    "Starting ",
    "Stopping ",
    "Pausing ",
];

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Line<'a> {
    /// A session has ended.
    Ended(Ended<'a>),
    /// HAProxy reports a server, a check or a proxy.
    Notice,
}

/// A session that has ended. `tcplog` has fewer fields.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended<'a> {
    /// The process id of the worker.
    pub worker: Option<u32>,
    /// The number of the line among those of its frontend and worker.
    pub sequence: Option<u64>,
    /// The number of the session in its worker, as in `show sess` (`id=`).
    pub id: Option<u64>,
    /// `None` for a client on a Unix socket.
    pub source: Option<SocketAddr>,
    pub frontend: &'a str,
    pub backend: &'a str,
    /// `None` if none was chosen.
    pub server: Option<&'a str>,
    /// The address that was dialled last.
    pub peer: Option<SocketAddr>,
    /// HAProxy's address and port towards the server, which the database shows.
    pub outgoing: Option<SocketAddr>,
    pub state: State,
    /// The time until a server was chosen for the last try, earlier tries included.
    pub waited: Option<Duration>,
    /// The time that the last try to connect took; `None` if the session was never connected.
    pub connected: Option<Duration>,
    /// From accept to end.
    pub lasted: Duration,
    pub retries: u32,
    pub from_client: Option<u64>,
    pub to_client: u64,
    /// The name of the error of the connection to the server, where the format has it.
    pub error: Option<&'a str>,
}

/// Why a datagram is not a line of a session.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Unread {
    TooLong,
    /// Not UTF-8.
    NotText,
    /// Neither of the two formats: another program, or another `log-format`.
    Foreign,
    /// One of the formats, with a field that is missing or not as it should be.
    Field(&'static str),
}

/// Reads a datagram.
///
/// # Errors
/// Why it is not a line of this log.
pub fn parse(datagram: &[u8]) -> Result<Line<'_>, Unread> {
    if datagram.len() > MAX_LINE {
        return Err(Unread::TooLong);
    }
    let text = std::str::from_utf8(datagram).map_err(|_| Unread::NotText)?.trim_end();
    if let Some(fields) = own(text) {
        return fields::parse(fields).map(Line::Ended);
    }
    if let Some(ended) = tcplog::parse(text) {
        return ended.map(Line::Ended);
    }
    let message = message(text);
    if NOTICES.iter().any(|notice| message.starts_with(notice)) {
        return Ok(Line::Notice);
    }
    Err(Unread::Foreign)
}

/// The fields after the first word of the agent's own format.
fn own(text: &str) -> Option<&str> {
    let (header, rest) = match memchr::memmem::find(text.as_bytes(), MARK.as_bytes()) {
        Some(at) => (text.get(..at)?, text.get(at + MARK.len()..)?),
        None => return None,
    };
    (header.is_empty() || header.ends_with(' ')).then(|| rest.strip_prefix(' '))?
}

/// The text after the syslog header, as far as there is one.
fn message(text: &str) -> &str {
    text.split_once("]: ").map_or(text, |(_, message)| message)
}

/// The value if it is a name that HAProxy may have.
pub(super) fn name(value: &str) -> Option<&str> {
    const LONGEST: usize = 256;
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.:".contains(c);
    (!value.is_empty() && value.len() <= LONGEST && value.chars().all(plain)).then_some(value)
}

/// The name of the server; `Some(None)` if none was chosen.
pub(super) fn server(value: &str) -> Option<Option<&str>> {
    match value {
        "<NOSRV>" | "<STATS>" | "-" => Some(None),
        value => name(value).map(Some),
    }
}

/// Milliseconds; -1 is `Some(None)`.
pub(super) fn millis(value: &str) -> Option<Option<Duration>> {
    match value {
        "-1" => Some(None),
        value => value.parse().ok().map(|millis| Some(Duration::from_millis(millis))),
    }
}

/// The number of retries: a `+` before it means that the last one went to another server.
pub(super) fn retries(value: &str) -> Option<u32> {
    value.strip_prefix('+').unwrap_or(value).parse().ok()
}

/// The client's address; `Some(None)` on a Unix socket.
pub(super) fn source(address: &str, port: &str) -> Option<Option<SocketAddr>> {
    if address == "unix" {
        return Some(None);
    }
    let ip: std::net::IpAddr = address.parse().ok()?;
    Some(Some(SocketAddr::new(ip.to_canonical(), port.parse().ok()?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_whole_word_is_the_mark() {
        assert_eq!(own("rds-lb-agent/1 a=b"), Some("a=b"));
        assert_eq!(own("<134>Nov 29 08:06:38 haproxy[1]: rds-lb-agent/1 a=b"), Some("a=b"));
        for other in ["xrds-lb-agent/1 a", "rds-lb-agent/12 a", "rds-lb-agent/1", ""] {
            assert_eq!(own(other), None, "{other}");
        }
    }

    #[test]
    fn numbers_and_names_are_bounded() {
        assert_eq!((millis("-1"), millis("7"), millis("-2")), (Some(None), Some(Some(Duration::from_millis(7))), None));
        assert_eq!((retries("+2"), retries("2"), retries("x")), (Some(2), Some(2), None));
        assert_eq!((name("a-b_c.1:2"), name(""), name("a b"), name(&"a".repeat(300))), (Some("a-b_c.1:2"), None, None, None));
    }
}
