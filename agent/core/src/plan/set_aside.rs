//! Which servers new sessions do not go to at somebody's word, for the rules of health: none
//! of the others may step aside for one of them.

use std::collections::BTreeSet;

use super::{DrainPhase, DrainReason, Drains};
use crate::ServerId;

impl Drains {
    /// The servers that a proxy sends no new sessions to, as far as its admin flags tell.
    ///
    /// A drain of the agent's own for due sessions, or at an operator's word, is left out: the
    /// capacity floor ends it as soon as the server is needed. One that is being ended is
    /// not, for nothing ends it sooner; nor one that health itself asked for, or a sibling
    /// would step aside before it is over.
    pub fn set_aside(&self) -> BTreeSet<ServerId> {
        let aside = |server: &ServerId, phase: DrainPhase| {
            let flags = self.flags(server).unwrap_or_default();
            match phase {
                DrainPhase::Idle => !flags.clear(),
                DrainPhase::Undoing { .. }
                | DrainPhase::Sending { reason: DrainReason::AuthRefused, .. }
                | DrainPhase::Held { reason: DrainReason::AuthRefused, .. } => true,
                DrainPhase::Sending { .. } | DrainPhase::Held { .. } => flags.maint || flags.other,
            }
        };
        self.phases()
            .filter(|(server, phase)| aside(server, *phase))
            .map(|(server, _)| server.clone())
            .collect()
    }
}
