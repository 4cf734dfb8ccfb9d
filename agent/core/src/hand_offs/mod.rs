//! Client sessions that failed: what each proxy's log shows, kept in memory for operators.
//!
//! A session fails before it reaches a server, at its login, or later when something cuts it. The log of a proxy cannot show
//! all of that: a session that was connected ends the same way whether it went well or not. So each failure has
//! a [`Certainty`], and the agent's own knowledge decides where it can: the sessions that it closed itself, its own logins on
//! the instance, and whether the instance still answers.
//!
//! Everything is bounded, since clients and forged log lines decide how much there is. Nothing acts on it.
//!
//! # Layout
//! - [`phase`](Phase): how a session fails, with the likely cause. [`failure`](Failure): one failed session.
//! - [`closes`](Closes): sessions that the agent closes. [`ends`](Ends): sessions that ended lately, until it is known whether
//!   their server went away.
//! - [`collapse`](Collapse): many failures of one kind as one report.
//! - [`counts`](Counts): by minute, for an hour. [`journal`](Journal): all of it together.

mod closes;
mod collapse;
mod counts;
mod ends;
mod failure;
mod journal;
mod phase;

pub use closes::Closes;
pub use collapse::{Collapse, Many, News};
pub use counts::{Counts, Summary, Top};
pub use ends::Ends;
pub use failure::{Certainty, Failure};
pub use journal::{Journal, Record};
pub use phase::Phase;
