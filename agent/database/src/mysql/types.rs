//! Literals, addresses and durations in SQL.
//!
//! Text is written into a statement as a hexadecimal literal (`X'617070'`): a binary string, in
//! which quotes, escapes, `sql_mode` and character sets have no meaning, and which compares byte
//! by byte. Numbers are written as they are. Nothing else is interpolated.

use std::{
    fmt::Write as _,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

/// Text as a hexadecimal literal.
pub(super) fn literal(text: &str) -> String {
    let mut sql = String::with_capacity(text.len() * 2 + 3);
    sql.push_str("X'");
    for byte in text.bytes() {
        // Writing to a string does not fail.
        let _ = write!(sql, "{byte:02x}");
    }
    sql.push('\'');
    sql
}

/// Connection ids as a list for `IN (...)`, never empty: 0 is no connection's id.
pub(super) fn id_list(ids: impl IntoIterator<Item = u64>) -> String {
    let mut list = String::from("0");
    for id in ids {
        let _ = write!(list, ",{id}");
    }
    list
}

/// The client address of a session, according to `HOST` of the process list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// An exact address and port.
    Address(SocketAddr),
    /// A resolved name and a port. A name does not prove an address.
    Name(String, u16),
    /// A local socket, or a server thread.
    Local,
}

impl Origin {
    /// `10.0.0.7:51234`, `fd00::7:51234` (without brackets), `localhost:51234`, `localhost`.
    pub(super) fn parse(host: &str) -> Self {
        let Some((name, port)) = host.rsplit_once(':') else { return Self::Local };
        let Some(port) = port_of(port) else { return Self::Local };
        match address(name) {
            Some(address) => Self::Address(SocketAddr::new(address, port)),
            None if name.is_empty() => Self::Local,
            None => Self::Name(name.to_owned(), port),
        }
    }

    pub(super) fn host(&self) -> String {
        match self {
            Self::Address(address) => address.ip().to_string(),
            Self::Name(name, _) => name.clone(),
            Self::Local => String::new(),
        }
    }
}

/// An address; IPv4-mapped IPv6 becomes IPv4.
pub(super) fn address(text: &str) -> Option<IpAddr> {
    text.parse::<IpAddr>().ok().map(|address| address.to_canonical())
}

/// A port: digits only, and not 0.
pub(super) fn port_of(text: &str) -> Option<u16> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|port| digits && *port != 0)
}

/// Whether a server with this `@@bind_address` listens on IPv4 only. Then `localhost` in its
/// process list means 127.0.0.1 and not `::1`.
pub(super) fn is_ipv4_only(bind_address: &str) -> bool {
    bind_address.parse::<std::net::Ipv4Addr>().is_ok()
}

/// Whether a setting is on. Newer servers have more values than on and off.
pub(super) fn is_on(value: Option<&str>) -> bool {
    value.is_some_and(|value| !matches!(value, "0" | "" | "OFF" | "NO"))
}

/// Microseconds, with or without decimals; negative values, after a clock was set back, count as
/// zero.
pub(super) fn microseconds(cell: Option<&str>) -> Option<Duration> {
    let whole = cell?.split('.').next()?;
    let us: i64 = whole.parse().ok()?;
    Some(Duration::from_micros(u64::try_from(us).unwrap_or(0)))
}

/// The duration proved by a difference of whole seconds, which may be one second more than has
/// passed.
pub(super) fn proved_by_seconds(cell: Option<&str>) -> Duration {
    let seconds = cell.and_then(|cell| cell.parse::<i64>().ok()).unwrap_or(0);
    Duration::from_secs(u64::try_from(seconds.saturating_sub(1)).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use std::net::Ipv6Addr;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_literal_contains_only_hexadecimal_digits_and_the_whole_text(text in ".*") {
            let sql = literal(&text);
            let digits = sql.strip_prefix("X'").and_then(|sql| sql.strip_suffix('\'')).unwrap();
            prop_assert!(digits.bytes().all(|byte| byte.is_ascii_hexdigit()));
            let bytes: Vec<u8> = (0..digits.len() / 2)
                .map(|at| u8::from_str_radix(&digits[at * 2..at * 2 + 2], 16).unwrap())
                .collect();
            prop_assert_eq!(bytes, text.into_bytes());
        }

        #[test]
        fn an_address_and_port_are_read_as_servers_write_them(ip: IpAddr, port in 1_u16..) {
            let expected = SocketAddr::new(ip.to_canonical(), port);
            prop_assert_eq!(Origin::parse(&format!("{ip}:{port}")), Origin::Address(expected));
        }

        #[test]
        fn no_host_is_read_as_an_address_that_it_does_not_contain(host in "[a-z0-9.:%-]{0,40}") {
            if let Origin::Address(address) = Origin::parse(&host) {
                let (name, port) = host.rsplit_once(':').unwrap();
                prop_assert_eq!(name.parse::<IpAddr>().unwrap().to_canonical(), address.ip());
                prop_assert_eq!(port.parse::<u16>().unwrap(), address.port());
            }
        }

        #[test]
        fn whole_seconds_never_prove_more_than_has_passed(start_ms in 0_i64..5_000, pause_ms in 0_i64..100_000) {
            let shown = (start_ms + pause_ms) / 1_000 - start_ms / 1_000;
            let proved = proved_by_seconds(Some(&shown.to_string()));
            prop_assert!(proved.as_millis() <= u128::try_from(pause_ms).unwrap());
        }
    }

    #[test]
    fn hosts_as_mariadb_prints_them() {
        let v6 = SocketAddr::new(Ipv6Addr::LOCALHOST.into(), 39704);
        assert_eq!(Origin::parse("::1:39704"), Origin::Address(v6));
        assert_eq!(Origin::parse("127.0.0.9:55333"), Origin::Address("127.0.0.9:55333".parse().unwrap()));
        assert_eq!(Origin::parse("::ffff:10.0.0.7:81"), Origin::Address("10.0.0.7:81".parse().unwrap()));
        assert_eq!(Origin::parse("localhost:44206"), Origin::Name("localhost".to_owned(), 44206));
        let name = "ip-10-0-2-7.eu-west-1.compute.internal";
        assert_eq!(Origin::parse(&format!("{name}:81")), Origin::Name(name.to_owned(), 81));
        for host in ["localhost", "", ":81", "10.0.0.7:", "10.0.0.7:0", "10.0.0.7:65536", "10.0.0.7:+81"] {
            assert_eq!(Origin::parse(host), Origin::Local, "{host}");
        }
    }

    #[test]
    fn durations_are_rounded_down() {
        assert_eq!(microseconds(Some("306175")), Some(Duration::from_micros(306_175)));
        assert_eq!(microseconds(Some("306175.9")), Some(Duration::from_micros(306_175)));
        assert_eq!(microseconds(Some("-5")), Some(Duration::ZERO));
        assert_eq!(microseconds(None), None);
        assert_eq!(proved_by_seconds(Some("0")), Duration::ZERO);
        assert_eq!(proved_by_seconds(Some("3")), Duration::from_secs(2));
    }

    #[test]
    fn ipv4_only_servers_are_recognized_by_bind_address() {
        for bind_address in ["127.0.0.1", "0.0.0.0", "10.0.0.3"] {
            assert!(is_ipv4_only(bind_address), "{bind_address}");
        }
        for bind_address in ["*", "::", "", "127.0.0.1,::1", "localhost"] {
            assert!(!is_ipv4_only(bind_address), "{bind_address}");
        }
    }

    #[test]
    fn every_value_except_off_counts_as_on() {
        for value in [None, Some("0"), Some("OFF"), Some("NO"), Some("")] {
            assert!(!is_on(value), "{value:?}");
        }
        for value in ["1", "ON", "YES", "NO_LOCK_NO_ADMIN"] {
            assert!(is_on(Some(value)), "{value}");
        }
    }

    #[test]
    fn ids_are_listed() {
        assert_eq!(id_list([]), "0");
        assert_eq!(id_list([7, u64::MAX]), "0,7,18446744073709551615");
    }
}
