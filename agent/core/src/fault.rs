//! What goes wrong between the agent and a database: in which phase, of which
//! kind, who is to blame, and what it proves about the database's health.

use std::fmt;

use serde::Serialize;

/// The phase of a probe, in order.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Resolving the name that is dialled.
    Dns,
    /// Opening the TCP connection.
    Tcp,
    /// Agreeing on TLS and verifying the server.
    Tls,
    /// Handing over the token.
    Login,
    /// The query after the login.
    Query,
}

#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FaultKind {
    /// The name could not be resolved.
    NameNotResolved,
    /// The host answered, and refused the connection.
    ConnectionRefused,
    /// No route, or the network said no.
    Unreachable,
    /// The agent's own host has no file, buffer or memory left to connect with.
    OutOfResources,
    /// No answer in time.
    TimedOut,
    /// The connection was closed or reset in the middle.
    Disconnected,
    /// The server does not offer TLS.
    TlsNotOffered,
    /// The TLS handshake failed for another reason than the certificate.
    TlsFailed,
    /// The certificate is not trusted, has expired, or names another host.
    CertificateInvalid,
    /// The agent has no token to log in with.
    NoToken,
    /// The database refused the login (class 28, 1045).
    LoginRefused,
    /// The login budget of the instance was used up: not tried.
    OverBudget,
    /// The server is starting up, shutting down or in crash recovery (57P03, 57P01).
    StartingUp,
    /// No free connection slot (53300, 1040).
    TooManyConnections,
    /// The server blocks the agent's address (1129).
    HostBlocked,
    /// The agent's user lacks a right (42501, 1227).
    PermissionDenied,
    /// Another error of the database.
    DatabaseError,
    /// The answer was not of the protocol.
    Protocol,
}

/// Who has to act.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Blame {
    Database,
    /// The network or name service between agent and database.
    Network,
    /// Credentials, token, IAM or the database user's grants.
    Credentials,
    /// The configuration: the agent's own (CA file, names, rights), or that of whatever creates
    /// a server block the proxy's address.
    Configuration,
    /// The agent's own process, or the host it runs on.
    Agent,
}

/// What a fault proves about the instance for its clients.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Evidence {
    /// The instance accepts no sessions from anybody.
    Down,
    /// No answer: says nothing alone.
    Silent,
    /// The authentication path is ill; the server itself is alive.
    AuthIll,
    /// The server is alive and said something else.
    Alive,
    /// Nothing: the agent's own side failed.
    Nothing,
}

/// A failed step of a probe, a liveness query or a retirement.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Fault {
    pub phase: Phase,
    pub kind: FaultKind,
    /// The database's code: SQLSTATE, or the MySQL error number.
    pub code: Option<String>,
    /// The whole chain of causes in words. Never a secret.
    pub message: String,
}

impl Fault {
    /// A fault without a database code.
    pub fn new(phase: Phase, kind: FaultKind, message: impl Into<String>) -> Self {
        Self { phase, kind, code: None, message: message.into() }
    }

    /// The same fault with the database's own code.
    #[must_use]
    pub fn with_code(mut self, code: impl Into<String>) -> Self {
        self.code = Some(code.into());
        self
    }

    /// Who has to act.
    pub fn blame(&self) -> Blame {
        use FaultKind as K;
        match self.kind {
            _ if self.is_shutdown() => Blame::Database,
            K::NameNotResolved | K::Unreachable | K::TimedOut | K::Disconnected => Blame::Network,
            K::OutOfResources => Blame::Agent,
            K::NoToken | K::LoginRefused => Blame::Credentials,
            K::CertificateInvalid | K::TlsNotOffered | K::TlsFailed => Blame::Configuration,
            K::PermissionDenied | K::OverBudget | K::HostBlocked => Blame::Configuration,
            K::ConnectionRefused | K::StartingUp | K::TooManyConnections => Blame::Database,
            K::DatabaseError | K::Protocol => Blame::Database,
        }
    }

    /// Whether the server itself says that it stops or starts.
    pub fn is_shutdown(&self) -> bool {
        let codes = ["57P01", "57P02", "57P03", "1053"];
        self.kind == FaultKind::StartingUp || self.code.as_deref().is_some_and(|code| codes.contains(&code))
    }

    /// What it proves about the instance.
    pub fn evidence(&self) -> Evidence {
        use FaultKind as K;
        match self.kind {
            K::ConnectionRefused | K::StartingUp => Evidence::Down,
            K::Unreachable | K::TimedOut | K::Disconnected => Evidence::Silent,
            K::NoToken | K::LoginRefused => Evidence::AuthIll,
            K::TooManyConnections | K::HostBlocked => Evidence::Alive,
            K::PermissionDenied | K::DatabaseError => Evidence::Alive,
            // A wrong CA file or a broken resolver of the agent's own host looks
            // the same from here as a broken server: it proves nothing.
            K::CertificateInvalid | K::TlsNotOffered | K::TlsFailed => Evidence::Nothing,
            K::NameNotResolved | K::OutOfResources | K::OverBudget | K::Protocol => Evidence::Nothing,
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let phase = match self.phase {
            Phase::Dns => "dns",
            Phase::Tcp => "tcp",
            Phase::Tls => "tls",
            Phase::Login => "login",
            Phase::Query => "query",
        };
        write!(f, "{phase}: {}", self.message)?;
        match &self.code {
            Some(code) => write!(f, " ({code})"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Fault {}
