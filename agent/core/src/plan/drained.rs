//! Administratively drained servers, for the rules of health: another server is taken out for lag
//! or silence only if a usable one that is not drained accepts logins.

use std::collections::BTreeSet;

use super::{DrainPhase, DrainReason, Drains, Shown};
use crate::ServerId;

impl Drains {
    /// The servers that a proxy sends no new sessions to, as far as it shows.
    ///
    /// A drain of the agent's own for due sessions, or one that an operator requested, is left out:
    /// the capacity floor ends it as soon as the server is needed. One that is being taken back is
    /// included, since nothing ends it sooner, and so is one that health asked for: otherwise a
    /// sibling could be taken out before it is over.
    pub fn drained_servers(&self) -> BTreeSet<ServerId> {
        let drained = |server: &ServerId, phase: DrainPhase| {
            let shown = self.shown(server);
            match phase {
                DrainPhase::Idle => shown.is_some_and(|shown| !shown.clear()),
                DrainPhase::Undoing { .. }
                | DrainPhase::Sending { reason: DrainReason::AuthRefused, .. }
                | DrainPhase::Held { reason: DrainReason::AuthRefused, .. } => true,
                DrainPhase::Sending { .. } | DrainPhase::Held { .. } => shown.is_some_and(Shown::others),
            }
        };
        self.phases()
            .filter(|(server, phase)| drained(server, *phase))
            .map(|(server, _)| server.clone())
            .collect()
    }
}
