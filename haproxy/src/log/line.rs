//! From a datagram to a line: the syslog header is skipped, and the format recognized.

use super::{
    MARK,
    ended::{Line, Unread},
    fields, tcplog,
};

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
    (header.is_empty() || header.ends_with([' ', '>'])).then(|| rest.strip_prefix(' '))?
}

/// The text after the syslog header, as far as there is one.
fn message(text: &str) -> &str {
    // RFC 3164 with a tag, or RFC 5424 without structured data.
    let after = text.split_once("]: ").or_else(|| text.split_once(" - - "));
    after.map_or(text, |(_, message)| message)
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
}
