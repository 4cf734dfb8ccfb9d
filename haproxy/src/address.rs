//! Addresses of runtime sockets.

use std::{fmt, path::PathBuf, str::FromStr};

/// The address of a runtime (stats or master) socket.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Address {
    Unix(PathBuf),
    /// `HOST:PORT`.
    Tcp(String),
}

impl FromStr for Address {
    type Err = String;

    /// Accepts HAProxy's own forms: `/path`, `unix@/path`, `ipv4@host:port`, `host:port`.
    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("unix@").or(text.starts_with('/').then_some(text)) {
            return if path.starts_with('/') {
                Ok(Self::Unix(path.into()))
            } else {
                Err(format!("`{text}`: the path of a socket is absolute, like /run/haproxy/admin.sock"))
            };
        }
        let address =
            ["ipv4@", "ipv6@", "tcp@"].iter().find_map(|tag| text.strip_prefix(tag)).unwrap_or(text);
        match address.rsplit_once(':') {
            Some((host, port)) if !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0) => {
                Ok(Self::Tcp(address.to_owned()))
            }
            _ => Err(format!("`{text}` is neither a path like /run/haproxy/admin.sock nor HOST:PORT")),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "{}", path.display()),
            Self::Tcp(address) => f.write_str(address),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn haproxys_own_forms_are_accepted() {
        for path in ["/run/haproxy.sock", "unix@/run/haproxy.sock"] {
            assert_eq!(path.parse(), Ok(Address::Unix("/run/haproxy.sock".into())));
        }
        for tcp in ["127.0.0.1:9999", "ipv4@127.0.0.1:9999", "tcp@127.0.0.1:9999"] {
            assert_eq!(tcp.parse(), Ok(Address::Tcp("127.0.0.1:9999".into())));
        }
    }

    #[test]
    fn other_text_is_refused() {
        for wrong in
            ["", "run/haproxy.sock", "unix@haproxy.sock", "localhost", "host:0", ":99", "host:seventy"]
        {
            assert!(wrong.parse::<Address>().is_err(), "{wrong}");
        }
    }
}
