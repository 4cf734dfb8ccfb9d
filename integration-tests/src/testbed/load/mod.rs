//! Real PostgreSQL and MariaDB clients that work through a proxy, and an honest count of what broke.
//!
//! Each client logs in with a token over verified TLS, for an endpoint's name, wherever it
//! dials; works; looks at its socket before it begins, as a pool does; and when its session
//! is gone, says in which phase that hit it and logs in again. Afterwards the tables
//! themselves show whether the acknowledgements of clients are true.
//!
//! It knows nothing of the agent: it measures whatever closes sessions.
//!
//! # Definitions
//! - **clean retirement**: the close was found by the look before BEGIN (or INSERT)
//! - **at BEGIN**: BEGIN was sent and failed
//! - **inside**: after BEGIN succeeded, before COMMIT was sent
//! - **at COMMIT**: COMMIT was sent and not acknowledged
//! - **autocommit error**: a single INSERT was sent and not acknowledged
//!
//! # Layout
//! - [`Target`]: the address, the name to verify and the login of the clients
//! - [`Work`], [`Think`]: what a client does
//! - [`Load`]: clients that run, and how to stop them
//! - [`LoadReport`]: what they saw; [`Verified`]: how the tables compare
//! - [`Interval`]: 95 % bounds of a rate
//! - `session`: one login, driven by its client alone
//! - `statements`: where engines want different words
//! - `transactions`, `autocommit`, `steady`: the clients

mod autocommit;
mod client;
mod interval;
mod report;
mod run;
mod session;
mod statements;
mod steady;
mod tally;
mod target;
mod transactions;
mod verify;
mod work;

pub use self::{
    interval::Interval,
    report::{Latency, LoadReport, SteadySession},
    run::{Load, LoadError},
    session::Ending,
    target::{Target, TokenSource},
    verify::Verified,
    work::{Think, Work},
};
