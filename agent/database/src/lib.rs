//! Everything the agent says to a database: verified TLS, IAM login, role,
//! activity, and the guarded closing of a session.
//!
//! Not here: tokens (`agent-aws`), and any decision about what an answer means or
//! which session has to go (`agent-core`).
//!
//! A token goes to a server only after TLS is up and the server has proved to be
//! the endpoint, and only as the clear password that IAM asks for inside TLS.
//!
//! # Layout
//! - [`engine`]: the traits [`Engine`] and [`Session`] that every kind of database implements.
//! - [`target`]: whom to log in to, and how long each step may take.
//! - [`trust`]: the certificate authorities, built in or from a file.
//! - `dial`: names to addresses to a TCP connection.
//! - `tls`: the handshake and what it proved; `certificate`: certificates in words.
//! - [`report`]: how a login went, phase by phase.
//! - [`postgresql`]: PostgreSQL 11 to 18, RDS and Aurora.
//! - [`mysql`]: MySQL 5.7 to 8.4 and MariaDB, RDS and Aurora.

mod certificate;
mod dial;
pub mod engine;
pub mod mysql;
pub mod postgresql;
pub mod report;
pub mod target;
mod tls;
pub mod trust;

pub use engine::{
    Answer, Engine, FunctionState, Lacks, Login, Method, Missing, RetireOutcome, RetireTarget, Rights, Scope,
    Session, Sight, TransactionSight,
};
pub use report::{CertificateFacts, LoginReport, PhaseTimes, TlsFacts};
pub use target::{APPLICATION_NAME, Address, Limits, Target};
pub use trust::{TlsTrust, TrustError, TrustSource};
