//! From probes and liveness queries to the verdict of each server.
//!
//! [`Health`] folds observations into facts of each instance; [`Fleet`] is the
//! immutable picture made of them. The rules are in [`judge`]: a verdict is
//! `Down` only on positive evidence, never for "I don't know".

mod address;
mod advice;
mod config;
mod fleet;
pub mod host_block;
mod instance;
mod judge;
mod observation;
mod refusal;
mod verdict;

pub use address::{AddressLogin, AddressState, AddressView};
pub use config::{FleetConfig, HealthRules, OnAuthFailure, ProxyView, ReaderFallback, Routing, ServerConfig};
pub use fleet::{Down, Fleet, Health};
pub use host_block::{AddressErrors, ConnectErrors, Counted, HostBlockGuard};
pub use instance::{InstanceView, LoginTrouble, Remembered, Role, Status, Trouble};
pub use judge::Admission;
pub use observation::{Observation, RoleFacts, Source};
pub use refusal::{Connects, Refusal};
pub use verdict::{Proof, State, Verdict, VerdictReason, WantedRole};
