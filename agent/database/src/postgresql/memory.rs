//! What a session remembers from one role query to the next. Data only.

use std::time::Instant;

/// What is kept from one role query to the next.
#[derive(Default)]
pub(super) struct RoleMemory {
    /// The first of the role queries that this server answers.
    pub(super) query: usize,
    /// The agents counted last, and when.
    pub(super) agents: Option<(u32, Instant)>,
    /// When the replica last had replayed all it had received. The time since its
    /// last replayed transaction is no lag if the writer was idle until just now.
    pub(super) caught_up: Option<Instant>,
}
