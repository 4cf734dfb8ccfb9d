//! The agent's database client: verified TLS, IAM login, role, activity, and the guarded close
//! of one session.
//!
//! Not here: tokens (`agent-aws`), and decisions about what an answer means or which session to
//! retire (`agent-core`).
//!
//! A token is sent only after TLS is up and the server's certificate matches the endpoint, and
//! only as the clear-text password that IAM authentication requests.
//!
//! # Layout
//! - [`engine`]: the traits [`Engine`] and [`Session`].
//! - [`target`]: the instance to log in to, and the time limit of each phase.
//! - [`trust`]: the certificate authorities, built in or from a file.
//! - `dial`: DNS and TCP.
//! - `tls`: handshake and verification; `certificate`: the fields of a certificate.
//! - [`report`]: the timings and findings of a login.
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
    Answer, Circumstances, Engine, FunctionState, Lacks, Login, Method, Missing, RetireOutcome, RetireTarget,
    Rights, Scope, Session, Sight, TransactionSight,
};
pub use report::{CertificateFacts, LoginReport, PhaseTimes, TlsFacts};
pub use target::{APPLICATION_NAME, Address, Limits, Target};
pub use trust::{TlsTrust, TrustError, TrustSource};
