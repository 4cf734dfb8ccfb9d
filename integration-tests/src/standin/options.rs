//! Size of a stand-in, names of its servers, lifetime of its credentials.

use std::{net::Ipv4Addr, time::Duration};

use super::{Engine, Error};

/// [`Options::default`] has a writer and two replicas.
#[derive(Clone, Debug)]
pub struct Options {
    pub engine: Engine,
    /// The number of replicas beside the writer, at most 9.
    pub replicas: usize,
    /// The first part of each name: `orders` gives `orders-a.….rds.amazonaws.com`.
    pub prefix: String,
    /// The region in the names, for which tokens have to be signed.
    pub region: String,
    /// The port of all servers; `None`: a free one.
    pub port: Option<u16>,
    /// Connections that a server takes.
    pub max_connections: u32,
    /// The lifetime of the endpoint's credentials.
    pub credential_life: Duration,
    /// The endpoint serves new credentials when the current ones expire in less than this;
    /// `None`: a quarter of their lifetime.
    pub renew_before: Option<Duration>,
    /// Failed connections from one address after which MariaDB blocks it.
    pub max_connect_errors: u32,
    /// MariaDB's `performance_schema`, which shows open transactions and table locks. Often off on
    /// RDS.
    pub performance_schema: bool,
    /// The loopback addresses that MariaDB resolves to host names. No other is resolved.
    pub names: Vec<(Ipv4Addr, String)>,
    /// Further settings for `postgresql.conf` or `my.cnf`: names and quoted values.
    pub settings: Vec<(String, String)>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            engine: Engine::default(),
            replicas: 2,
            prefix: "orders".to_owned(),
            region: "eu-west-1".to_owned(),
            port: None,
            max_connections: 300,
            credential_life: Duration::from_hours(6),
            renew_before: None,
            max_connect_errors: 100,
            performance_schema: true,
            names: Vec::new(),
            settings: Vec::new(),
        }
    }
}

/// The part of RDS names that identifies account and region; invented.
const ACCOUNT: &str = "c1a2b3d4e5f6";

impl Options {
    /// The least that any stand-in has: a PostgreSQL replica refuses data of a server that
    /// took more connections than it does.
    pub(super) fn template() -> Self {
        Self { max_connections: 10, ..Self::default() }
    }

    pub(super) fn check(&self) -> Result<(), Error> {
        let in_names = |text: &str| {
            let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
            !text.is_empty() && text.len() <= 40 && text.bytes().all(allowed)
        };
        let wrong = if self.replicas > 9 {
            "at most nine replicas"
        } else if !in_names(&self.prefix) || !in_names(&self.region) {
            "prefix and region have lower case letters, digits and hyphens"
        } else if self.renew_before() >= self.credential_life {
            "credentials have to live longer than they are renewed before their end"
        } else {
            return Ok(());
        };
        Err(Error::Options(wrong))
    }

    pub(super) fn servers(&self) -> usize {
        self.replicas + 1
    }

    pub(super) fn renew_before(&self) -> Duration {
        self.renew_before.unwrap_or(self.credential_life / 4)
    }

    pub(super) fn endpoint(&self, server: &str) -> String {
        format!("{}-{server}.{ACCOUNT}.{}.rds.amazonaws.com", self.prefix, self.region)
    }

    pub(super) fn cluster_endpoint(&self) -> String {
        format!("{}.cluster-{ACCOUNT}.{}.rds.amazonaws.com", self.prefix, self.region)
    }

    pub(super) fn reader_endpoint(&self) -> String {
        format!("{}.cluster-ro-{ACCOUNT}.{}.rds.amazonaws.com", self.prefix, self.region)
    }
}
