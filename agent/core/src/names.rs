//! Names of what the agent looks after. Cheap to copy around: all are shared text.

use std::{collections::BTreeMap, fmt, sync::Arc};

use serde::{Deserialize, Serialize, Serializer};

macro_rules! name {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(Arc<str>);

        impl $name {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl From<&str> for $name {
            fn from(text: &str) -> Self {
                Self(text.into())
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

name! {
    /// An RDS instance or cluster the agent looks after, as the configuration calls it.
    DatabaseName
}

name! {
    /// One database server of a database, as the configuration calls it.
    InstanceName
}

/// One instance of one database. Shown as `database/instance`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct InstanceId {
    /// The database it belongs to.
    pub database: DatabaseName,
    /// Its name within the database.
    pub instance: InstanceName,
}

impl InstanceId {
    /// The instance `instance` of `database`.
    pub fn new(database: &str, instance: &str) -> Self {
        Self { database: database.into(), instance: instance.into() }
    }
}

impl fmt::Display for InstanceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.database, self.instance)
    }
}

/// One of the configured proxies, by its index in the configuration.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ProxyIndex(pub usize);

impl fmt::Display for ProxyIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A proxy's entry for an instance. Shown as `backend/server`, which is also
/// what HAProxy sends as `agent-send`. An endpoint of an Envoy with the name of a server of HAProxy is shown
/// as `envoy:cluster/instance`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ServerId {
    pub proxy: ProxyIndex,
    /// The backend (HAProxy) or cluster (Envoy).
    pub backend: Arc<str>,
    /// The server (HAProxy) or endpoint (Envoy).
    pub server: Arc<str>,
    /// Whether its name alone would be that of a server of HAProxy too.
    #[serde(skip)]
    ambiguous: bool,
}

impl ServerId {
    pub fn new(proxy: ProxyIndex, backend: &str, server: &str) -> Self {
        Self { proxy, backend: backend.into(), server: server.into(), ambiguous: false }
    }

    /// The same endpoint of an Envoy, beside a server of HAProxy with the same name.
    #[must_use]
    pub fn ambiguous(self) -> Self {
        Self { ambiguous: true, ..self }
    }
}

impl fmt::Display for ServerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let proxy = if self.ambiguous { "envoy:" } else { "" };
        write!(f, "{proxy}{}/{}", self.backend, self.server)
    }
}

/// JSON keys are text: `database/instance`, `backend/server`.
pub(crate) fn by_text<K: fmt::Display, V: Serialize, S: Serializer>(
    map: &BTreeMap<K, V>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_map(map.iter().map(|(key, value)| (key.to_string(), value)))
}
