//! What a session remembers of its server from one role query to the next. Data only: `role`
//! fills it in.

use std::time::Instant;

#[derive(Default)]
pub(super) struct RoleMemory {
    /// The index of the first role query that this server answers.
    pub(super) query: usize,
    /// The last count of agents, and when it was taken.
    pub(super) agents: Option<(u32, Instant)>,
    /// When the replica had last replayed everything it had received. The time since its last
    /// replayed transaction is not lag if the writer was idle meanwhile.
    pub(super) caught_up: Option<Instant>,
}
