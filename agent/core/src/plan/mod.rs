//! From ledger, fleet and policy to commands and holds.
//!
//! - [`policy`](Policy): the operator's choices.
//! - [`Budget`]: closes and logins on one instance in any one second.
//! - [`Breaker`]: clients that were closed and do not come back.
//! - [`Drains`]: the drain of each server, from wanted to taken back. [`operator`]: those of operators.
//! - [`Planner`]: all of it together, once a tick.
//!
//! A plan says what to do now, and of everything that is due and left alone, why.

mod admissions;
mod breaker;
mod budget;
mod command;
mod drain;
mod drain_phase;
mod operator;
mod planner;
mod policy;
mod retire;
mod scope;
mod tries;

pub use breaker::{Breaker, Group};
pub use budget::{Budget, Purpose, Shared, Ticket};
pub use command::{
    AdminFlags, AdminWord, Close, Command, DrainReason, DrainSent, Hold, HoldReason, Outcome, Plan,
    Requested, Retire, Retired, Shortage, Subject, UndrainReason,
};
pub use drain::Drains;
pub use drain_phase::{Carrier, DrainPhase, Left, Shown};
pub use operator::Progress;
pub use planner::Planner;
pub use policy::{BreakerPolicy, Busy, CloseVia, Mode, Policy};
pub use retire::limit_of;
pub use scope::{Exempt, Network, Scope};
