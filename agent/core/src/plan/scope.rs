//! Which users' sessions the agent manages, and which it leaves alone.

use std::{fmt, net::IpAddr, str::FromStr};

use serde::Serialize;

use crate::session::{ActivityRow, ProxySession};

/// Whose sessions are looked after.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// Of users who log in by IAM.
    #[default]
    Iam,
    /// Of these users, however they log in.
    Users(Vec<String>),
}

impl Scope {
    /// Whether a session's user is in it.
    pub fn covers(&self, row: &ActivityRow) -> bool {
        match self {
            Self::Iam => row.iam_user,
            Self::Users(users) => users.iter().any(|user| **user == *row.user),
        }
    }
}

/// A client network: an address and how many leading bits of it count.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Network {
    address: IpAddr,
    bits: u8,
}

impl Network {
    /// The network around an address: its /24, or its /64 in IPv6.
    pub fn around(address: IpAddr) -> Self {
        let address = address.to_canonical();
        Self::masked(address, if address.is_ipv4() { 24 } else { 64 })
    }

    /// The networks before and after all others.
    pub(super) const ENDS: (Network, Network) = (
        Network { address: IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED), bits: 0 },
        Network { address: IpAddr::V6(std::net::Ipv6Addr::from_bits(u128::MAX)), bits: 128 },
    );

    /// Whether an address lies in it.
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        address.is_ipv4() == self.address.is_ipv4()
            && Self::masked(address, self.bits).address == self.address
    }

    fn masked(address: IpAddr, bits: u8) -> Self {
        let address = match address {
            IpAddr::V4(v4) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(bits)).unwrap_or(0);
                IpAddr::V4((v4.to_bits() & mask).into())
            }
            IpAddr::V6(v6) => {
                let mask = u128::MAX.checked_shl(128 - u32::from(bits)).unwrap_or(0);
                IpAddr::V6((v6.to_bits() & mask).into())
            }
        };
        Self { address, bits }
    }
}

impl FromStr for Network {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (address, bits) =
            text.split_once('/').map_or((text, None), |(address, bits)| (address, Some(bits)));
        let address: IpAddr =
            address.parse().map_err(|_| format!("`{text}` is not a network; write it like 10.0.0.0/8"))?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let bits = match bits {
            None => most,
            Some(bits) => bits
                .parse()
                .ok()
                .filter(|bits| *bits <= most)
                .ok_or_else(|| format!("`{text}`: the prefix is a number from 0 to {most}"))?,
        };
        let network = Self::masked(address, bits);
        if network.address == address {
            Ok(network)
        } else {
            Err(format!("`{text}` has bits beyond its prefix; did you mean {network}?"))
        }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.bits)
    }
}

impl Serialize for Network {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Who is left alone.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Exempt {
    pub users: Vec<String>,
    /// Names of databases inside the server.
    pub databases: Vec<String>,
    /// Application names; a trailing `*` stands for any ending.
    pub applications: Vec<String>,
    /// Networks of clients, as the proxy sees them.
    pub networks: Vec<Network>,
}

impl Exempt {
    /// Whether a session is exempt. Without its proxy side, its network is unknown.
    pub fn covers(&self, row: &ActivityRow, proxy: Option<&ProxySession>) -> bool {
        self.users.iter().any(|user| **user == *row.user)
            || self.databases.iter().any(|name| **name == *row.database_name)
            || self.applications.iter().any(|pattern| matches(pattern, &row.application))
            || proxy.is_some_and(|proxy| self.covers_network(proxy))
    }

    /// Behind a Unix socket there may be another proxy, with clients from anywhere: where any network is
    /// exempt, they are.
    fn covers_network(&self, proxy: &ProxySession) -> bool {
        match proxy.source {
            Some(source) => self.networks.iter().any(|network| network.contains(source.ip())),
            None => !self.networks.is_empty(),
        }
    }
}

fn matches(pattern: &str, text: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(beginning) => text.starts_with(beginning),
        None => pattern == text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_contains_its_own_addresses_only() {
        let network: Network = "10.1.0.0/16".parse().unwrap();
        assert!(network.contains("10.1.255.3".parse().unwrap()));
        assert!(network.contains("::ffff:10.1.2.3".parse().unwrap()));
        assert!(!network.contains("10.2.0.1".parse().unwrap()));
        assert!(!network.contains("fd00::1".parse().unwrap()));
        let everything: Network = "0.0.0.0/0".parse().unwrap();
        assert!(everything.contains("192.0.2.1".parse().unwrap()));
        let one: Network = "192.0.2.7".parse().unwrap();
        assert!(one.contains("192.0.2.7".parse().unwrap()) && !one.contains("192.0.2.8".parse().unwrap()));
    }

    #[test]
    fn a_network_that_is_none_is_refused_with_advice() {
        assert!("10.0.0.0/33".parse::<Network>().unwrap_err().contains("0 to 32"));
        assert!("10.1.2.3/8".parse::<Network>().unwrap_err().contains("did you mean 10.0.0.0/8?"));
        assert!("office".parse::<Network>().unwrap_err().contains("10.0.0.0/8"));
    }

    #[test]
    fn an_application_pattern_ends_in_a_star_or_is_exact() {
        assert!(matches("report-*", "report-nightly"));
        assert!(matches("psql", "psql"));
        assert!(!matches("psql", "psql2"));
    }
}
