//! Protobuf messages in JSON: zero values are omitted, and large numbers are strings.

use std::{net::SocketAddr, time::Duration};

use serde_json::Value;

/// The value at a path of keys, separated by dots.
pub(super) fn at<'a>(value: &'a Value, path: &str) -> &'a Value {
    path.split('.').fold(value, |value, key| value.get(key).unwrap_or(&Value::Null))
}

/// The elements of a list; empty if it is missing.
pub(super) fn list<'a>(value: &'a Value, path: &str) -> &'a [Value] {
    at(value, path).as_array().map_or(&[], Vec::as_slice)
}

/// Empty if it is missing.
pub(super) fn text<'a>(value: &'a Value, path: &str) -> &'a str {
    at(value, path).as_str().unwrap_or_default()
}

/// False if it is missing.
pub(super) fn flag(value: &Value, path: &str) -> bool {
    at(value, path).as_bool().unwrap_or_default()
}

/// A number or a string; 0 if it is missing.
pub(super) fn number(value: &Value, path: &str) -> u64 {
    match at(value, path) {
        Value::Number(number) => number.as_u64().unwrap_or_default(),
        Value::String(text) => text.parse().unwrap_or_default(),
        _ => 0,
    }
}

/// A duration like `0.050s`.
pub(super) fn duration(value: &Value, path: &str) -> Option<Duration> {
    let seconds: f64 = at(value, path).as_str()?.strip_suffix('s')?.parse().ok()?;
    Duration::try_from_secs_f64(seconds).ok()
}

/// The address under `socket_address`; `None` for a pipe or a name.
pub(super) fn address(value: &Value) -> Option<SocketAddr> {
    let ip: std::net::IpAddr = text(value, "socket_address.address").parse().ok()?;
    let port = u16::try_from(number(value, "socket_address.port_value")).ok()?;
    Some(SocketAddr::new(ip.to_canonical(), port))
}

/// Whether the `@type` of a message ends with this name.
pub(super) fn is(value: &Value, name: &str) -> bool {
    text(value, "@type").rsplit('/').next().is_some_and(|own| own == name)
}
