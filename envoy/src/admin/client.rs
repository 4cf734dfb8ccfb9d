//! The admin interface, asked over TCP or a Unix socket.
//!
//! Every client of the interface can also stop Envoy, so it is best a Unix socket. The
//! agent sends `GET`s of four paths and nothing else.

use std::{fmt, path::PathBuf, time::Duration};

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;

use super::{Clusters, ServerInfo, Settings, Stats};

/// One question takes no longer.
const TAKES: Duration = Duration::from_secs(5);

/// No answer is larger; that with 1,000 clusters is a few MB.
const MAX_ANSWER: usize = 16 * 1024 * 1024;

/// Everything except the unreserved characters of RFC 3986.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// Where an admin interface is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    Unix(PathBuf),
    /// A host and port.
    Tcp(String),
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "{}", path.display()),
            Self::Tcp(address) => f.write_str(address),
        }
    }
}

/// The admin interface could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// No answer: Envoy is away, or the address is not its `admin.address`.
    #[error(
        "{address}: Envoy's admin interface does not answer: {what}; is this its `admin.address`, and may the agent open it?"
    )]
    Away {
        /// Where it should be.
        address: Address,
        what: String,
    },
    /// The answer is not what Envoy says.
    #[error("{address}{path}: {what}; is this Envoy's admin interface?")]
    Strange {
        address: Address,
        /// What it was asked.
        path: String,
        /// What is wrong with the answer.
        what: String,
    },
}

/// The admin interface of one Envoy.
#[derive(Clone, Debug)]
pub struct Admin {
    address: Address,
    client: reqwest::Client,
}

impl Admin {
    /// Connects with the first question only.
    ///
    /// # Errors
    /// [`AdminError::Away`] if the address is none.
    pub fn new(address: Address) -> Result<Self, AdminError> {
        let builder = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .timeout(TAKES)
            .pool_max_idle_per_host(1);
        let builder = match &address {
            Address::Unix(path) => builder.unix_socket(path.as_path()),
            Address::Tcp(_) => builder,
        };
        match builder.build() {
            Ok(client) => Ok(Self { address, client }),
            Err(error) => Err(AdminError::Away { address, what: chain(&error) }),
        }
    }

    pub fn address(&self) -> &Address {
        &self.address
    }

    /// The endpoints that Envoy has, and what it thinks of each.
    pub async fn clusters(&self) -> Result<Clusters, AdminError> {
        let path = "/clusters?format=json";
        let answer = self.ask(path).await?;
        Clusters::read(&answer).ok_or_else(|| self.strange(path, "no `cluster_statuses` in it"))
    }

    /// How it is set up.
    pub async fn settings(&self) -> Result<Settings, AdminError> {
        let path = "/config_dump";
        let answer = self.ask(path).await?;
        Settings::read(&answer).ok_or_else(|| self.strange(path, "no `configs` in it"))
    }

    /// Statistics whose names match a regular expression of plain characters, `.`, `|`, `^` and `$`.
    pub async fn stats(&self, filter: &str) -> Result<Stats, AdminError> {
        let path = format!("/stats?format=json&filter={}", utf8_percent_encode(filter, ENCODED));
        let answer = self.ask(&path).await?;
        Stats::read(&answer).ok_or_else(|| self.strange(&path, "no `stats` in it"))
    }

    pub async fn server_info(&self) -> Result<ServerInfo, AdminError> {
        let path = "/server_info";
        let answer = self.ask(path).await?;
        ServerInfo::read(&answer).ok_or_else(|| self.strange(path, "no `version` in it"))
    }

    async fn ask(&self, path: &str) -> Result<Value, AdminError> {
        let host = match &self.address {
            Address::Unix(_) => "envoy",
            Address::Tcp(address) => address,
        };
        let away =
            |error: reqwest::Error| AdminError::Away { address: self.address.clone(), what: chain(&error) };
        let mut answer = self.client.get(format!("http://{host}{path}")).send().await.map_err(away)?;
        if !answer.status().is_success() {
            return Err(self.strange(path, &format!("it answers {}", answer.status())));
        }
        let mut body = Vec::new();
        while let Some(piece) = answer.chunk().await.map_err(away)? {
            if body.len() + piece.len() > MAX_ANSWER {
                return Err(self.strange(path, "an answer without an end"));
            }
            body.extend_from_slice(&piece);
        }
        serde_json::from_slice(&body).map_err(|error| self.strange(path, &error.to_string()))
    }

    fn strange(&self, path: &str, what: &str) -> AdminError {
        AdminError::Strange { address: self.address.clone(), path: path.to_owned(), what: what.to_owned() }
    }
}

/// An error with all its causes: the outermost only says that a request failed.
fn chain(error: &reqwest::Error) -> String {
    let mut words = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        words = error.to_string();
        cause = error.source();
    }
    words
}
