//! When the locks of other agents are read on one instance, and which ones this agent takes. Its decisions are
//! [`agent_core::peers`]'s.

use std::time::Duration;

use agent_core::{
    Fault,
    peers::{Look, Marks, Turn, Wish, shared_permits},
    plan::{Purpose, Shared as Part},
};
use agent_database::Session;
use tokio::time::Instant;

use crate::{
    instances::door::Door,
    messages::Input,
    shared::{jittered, random},
    snapshot::Meeting as Wanted,
};

/// Between two looks that the decider asks for.
const SOON: Duration = Duration::from_millis(20);

/// If the server refuses the locks: an operator may have to grant something.
const REFUSED: Duration = Duration::from_secs(60);

/// Permits that are to be released and in use are free after this.
const IN_USE: Duration = Duration::from_millis(1_200);

pub(super) struct Meeting {
    probe_interval: Duration,
    turn: Turn,
    look: Look,
    /// The marks that were wanted at the last look.
    tried: Marks,
    soon: Instant,
    retry: Instant,
    next: Instant,
    refused: bool,
}

impl Meeting {
    pub(super) fn new(probe_interval: Duration, now: Instant) -> Self {
        Self {
            probe_interval,
            turn: Turn::default(),
            look: Look::default(),
            tried: Marks::default(),
            soon: now,
            retry: now,
            next: now,
            refused: false,
        }
    }

    /// When the locks have to be read next.
    pub(super) fn next(&self, wanted: Wanted) -> Instant {
        if self.refused {
            return self.next;
        }
        let waits = self.look.permits == 0 && wanted.permits > 0;
        let marks = Marks { waits, ..wanted.marks };
        // A lock that could not be taken is tried again as rarely as a permit.
        let untried = marks != self.look.own && marks != self.tried;
        if wanted.now || untried {
            self.soon.min(self.next)
        } else if marks != self.look.own || wanted.permits > self.look.permits {
            self.retry.min(self.next)
        } else {
            self.next
        }
    }

    /// Takes and releases locks, and reads those of all agents.
    ///
    /// # Errors
    /// Why the session has ended.
    pub(super) async fn meet(
        &mut self,
        door: &Door,
        session: &mut dyn Session,
        wanted: Wanted,
    ) -> Result<(), Fault> {
        let (shared, id) = (&door.shared, door.instance());
        let asked = shared.clock.now();
        let (permits, wish) = {
            let mut budget = shared.budget.lock();
            let of = shared_permits(budget.per_second(), self.look.peers + 1, self.probe_interval);
            let permits = self.turn.permits(asked, wanted.permits, &self.look, of);
            let held = self.look.permits;
            // None of those that are released is used from now on. One in use counts until a second after it.
            let peers = self.look.peers;
            if held > 0 {
                budget.share(id, Some(Part { permits: permits.min(held), peers }));
            }
            let in_use = budget.counted(id, Purpose::Close, asked).min(held);
            let marks = Marks { waits: held == 0 && permits > 0, ..wanted.marks };
            self.tried = Marks { waits: held == 0 && wanted.permits > 0, ..wanted.marks };
            let first = u32::try_from(random() % 1_000).unwrap_or(0);
            (permits, Wish { marks, permits: permits.max(in_use), of, first })
        };
        let result = session.meet(&wish).await;
        let (at, now) = (shared.clock.now(), Instant::now());
        self.refused = result.is_err();
        self.soon = now + SOON;
        if let Ok(look) = &result {
            self.look = *look;
            self.retry = now + jittered(look.retry());
            self.next = now + jittered(look.interval());
            if look.permits > permits {
                self.next = self.next.min(now + IN_USE);
            }
        } else {
            self.look = Look::default();
            self.next = now + jittered(REFUSED);
        }
        let seen = result.as_ref().ok().filter(|look| look.foreign == 0);
        let part = seen.map(|look| Part { permits: look.permits.min(permits), peers: look.peers });
        shared.budget.lock().share(id, part);
        let input = Input::Peers { instance: id.clone(), asked, at, look: result.clone() };
        shared.send(input).await;
        match (result, session.fault()) {
            (Err(fault), Some(_)) => Err(fault),
            _ => Ok(()),
        }
    }

    /// The session has ended, and its locks with it. Returns the number of other agents.
    pub(super) async fn end(self, door: &Door, fault: &Fault) -> u32 {
        let (id, now) = (door.instance().clone(), door.shared.clock.now());
        door.shared.budget.lock().share(&id, None);
        door.shared.send(Input::Peers { instance: id, asked: now, at: now, look: Err(fault.clone()) }).await;
        self.look.peers
    }
}
