//! The values of fields, as both formats have them. Strict and bounded.

use std::{
    net::{IpAddr, SocketAddr},
    str::FromStr,
    time::Duration,
};

/// A value that HAProxy does not print.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) struct Invalid;

/// The value if it is a name that HAProxy may have.
pub(super) fn name(value: &str) -> Option<&str> {
    const LONGEST: usize = 256;
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.:".contains(c);
    (!value.is_empty() && value.len() <= LONGEST && value.chars().all(plain)).then_some(value)
}

/// The name of the server; `None` if none was chosen.
pub(super) fn server(value: &str) -> Result<Option<&str>, Invalid> {
    match value {
        "<NOSRV>" | "<STATS>" | "-" => Ok(None),
        value => name(value).map(Some).ok_or(Invalid),
    }
}

/// Digits alone. Under `option logasap` the line of a session that goes on has a `+` before its time and bytes.
pub(super) fn number<T: FromStr>(value: &str) -> Option<T> {
    value.bytes().all(|byte| byte.is_ascii_digit()).then(|| value.parse().ok()).flatten()
}

/// Milliseconds; `None` for -1.
pub(super) fn millis(value: &str) -> Result<Option<Duration>, Invalid> {
    match value {
        "-1" => Ok(None),
        value => number(value).map(|millis| Some(Duration::from_millis(millis))).ok_or(Invalid),
    }
}

/// The number of retries: a `+` before it means that the last one went to another server.
pub(super) fn retries(value: &str) -> Option<u32> {
    number(value.strip_prefix('+').unwrap_or(value))
}

/// The client's address; `None` on a Unix socket.
pub(super) fn source(address: &str, port: &str) -> Result<Option<SocketAddr>, Invalid> {
    if address == "unix" {
        return Ok(None);
    }
    let ip: IpAddr = address.parse().map_err(|_| Invalid)?;
    Ok(Some(SocketAddr::new(ip.to_canonical(), number(port).ok_or(Invalid)?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_names_are_bounded() {
        assert_eq!(
            (millis("-1"), millis("7"), millis("-2")),
            (Ok(None), Ok(Some(Duration::from_millis(7))), Err(Invalid))
        );
        assert_eq!((retries("+2"), retries("++2"), retries("x")), (Some(2), None, None));
        assert_eq!(
            (name("a-b_c.1:2"), name(""), name("a b"), name(&"a".repeat(300))),
            (Some("a-b_c.1:2"), None, None, None)
        );
    }
}
