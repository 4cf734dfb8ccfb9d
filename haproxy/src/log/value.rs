//! The values of fields, as both formats have them. Strict and bounded.

use std::{net::SocketAddr, str::FromStr, time::Duration};

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

/// Digits alone. Under `option logasap` the line of a session that goes on has a `+` before its time and bytes.
pub(super) fn number<T: FromStr>(value: &str) -> Option<T> {
    value.bytes().all(|byte| byte.is_ascii_digit()).then(|| value.parse().ok()).flatten()
}

/// Milliseconds; -1 is `Some(None)`.
pub(super) fn millis(value: &str) -> Option<Option<Duration>> {
    match value {
        "-1" => Some(None),
        value => number(value).map(|millis| Some(Duration::from_millis(millis))),
    }
}

/// The number of retries: a `+` before it means that the last one went to another server.
pub(super) fn retries(value: &str) -> Option<u32> {
    number(value.strip_prefix('+').unwrap_or(value))
}

/// The client's address; `Some(None)` on a Unix socket.
pub(super) fn source(address: &str, port: &str) -> Option<Option<SocketAddr>> {
    if address == "unix" {
        return Some(None);
    }
    let ip: std::net::IpAddr = address.parse().ok()?;
    Some(Some(SocketAddr::new(ip.to_canonical(), number(port)?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_names_are_bounded() {
        assert_eq!(
            (millis("-1"), millis("7"), millis("-2")),
            (Some(None), Some(Some(Duration::from_millis(7))), None)
        );
        assert_eq!((retries("+2"), retries("++2"), retries("x")), (Some(2), None, None));
        assert_eq!(
            (name("a-b_c.1:2"), name(""), name("a b"), name(&"a".repeat(300))),
            (Some("a-b_c.1:2"), None, None, None)
        );
    }
}
