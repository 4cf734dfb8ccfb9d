//! HAProxy's log: one line for each session, when it ends.
//!
//! Two formats are read: [`FORMAT`], which `rds-lb-agent render haproxy` writes, and HAProxy's own `option tcplog`.
//! Lines come as syslog datagrams with a header or without (`format raw`). A line is hostile input: reading is bounded, never
//! panics, and a line that is neither is an [`Unread`] with its reason.
//!
//! What a line means for a client is decided elsewhere.
//!
//! # Layout
//! - [`line`](parse): from a datagram to its format. `fields`: [`FORMAT`]. `tcplog`: `option tcplog`. `value`: their values.
//! - [`ended`](Ended): a session that has ended.
//! - [`state`](State): the termination state, with its meaning in words.
//! - [`sequence`](Sequence): lost lines, by the counter in each line.

mod ended;
mod fields;
mod line;
mod sequence;
mod state;
mod tcplog;
mod value;

pub use ended::{Ended, Line, Unread};
pub use line::{MAX_LINE, parse};
pub use sequence::{Sequence, Sequences};
pub use state::{Moment, Side, State};

/// The first word of a line in [`FORMAT`], with its version.
pub(crate) const MARK: &str = "rds-lb-agent/1";

/// The value of `log-format`, for HAProxy 2.6 and later. The names of the fields are HAProxy's own. `err=%[bc_err_name]`
/// may be added from 3.1 on; unknown fields are skipped.
pub const FORMAT: &str = "rds-lb-agent/1 pid=%pid lc=%lc rt=%rt ci=%ci cp=%cp f=%f b=%b s=%s si=%si sp=%sp \
                          bi=%bi bp=%bp ts=%ts Tw=%Tw Tc=%Tc Tt=%Tt rc=%rc U=%U B=%B";
