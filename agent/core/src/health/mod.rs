//! From probes and liveness queries to the verdict of each server.

mod observation;

pub use observation::{Observation, RoleFacts};
