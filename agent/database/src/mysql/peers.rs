//! Locks by which agents meet: user locks (`GET_LOCK`), which need no privilege.
//!
//! User locks are exclusive, so each agent takes a number of its own, and its marks are locks with that number.
//! `IS_USED_LOCK` shows which session holds one; the process list shows an agent's user its own sessions, also
//! without `PROCESS`. Names are the server's, whatever database a session uses.

use std::{collections::HashSet, fmt::Write};

use agent_core::{
    Fault, FaultKind, Phase,
    peers::{Look, Marks, Wish},
};

use super::{memory::Locks, session::MySqlSession, wire::ResultSet};

/// What the queries do, for the message of a fault.
const WHAT: &str = "reading the locks of agents";

/// Agents beyond this number have no number of their own and no marks.
const MOST: u32 = 256;

/// So many numbers are read at first; more when half of them are taken.
const FIRST: u32 = 32;

/// The agents' own sessions.
const SESSIONS: &str = "SELECT CONNECTION_ID(); SELECT ID FROM information_schema.PROCESSLIST \
     WHERE USER = CAST(SUBSTRING_INDEX(USER(), '@', 1) AS BINARY)";

const AGENT: &str = "agent";
const WRITER: &str = "writer";
const WORD: &str = "word";
const DRAIN: &str = "drain";
const WAITS: &str = "waits";
const PERMIT: &str = "permit";
const NUMBERED: [&str; 5] = [AGENT, WRITER, WORD, DRAIN, WAITS];

pub(super) async fn meet(session: &mut MySqlSession, wish: &Wish) -> Result<Look, Fault> {
    let mut locks = if let Some(locks) = &session.memory.locks {
        locks.clone()
    } else {
        let number = first_free(session).await?;
        let locks = Locks { number, permits: Vec::new(), own: Marks::default(), read: FIRST };
        session.memory.locks.insert(locks).clone()
    };
    let changes = changes(&locks, wish);
    if !changes.is_empty() {
        session.query(WHAT, &format!("SELECT {}", changes.join(", "))).await?;
    }
    // Permits that were added since the last look are read too.
    let permits = wish.of.max(locks.permits.iter().max().map_or(0, |most| most + 1));
    let mut sql = format!("{SESSIONS}; SELECT 0");
    for kind in NUMBERED {
        for number in 0..locks.read {
            let _ = write!(sql, ", IS_USED_LOCK({})", name(kind, number));
        }
    }
    for number in 0..permits {
        let _ = write!(sql, ", IS_USED_LOCK({})", name(PERMIT, number));
    }
    let results = session.query(WHAT, &sql).await?;
    let [me, sessions, used] = results.as_slice() else { return Err(incomplete()) };
    let holders = Holders::read(me, sessions, used).ok_or_else(incomplete)?;
    let mut look = Look::default();
    let mut highest = 0;
    for (index, kind) in NUMBERED.into_iter().enumerate() {
        let at = |number| index * locks.read as usize + number as usize;
        let peers = (0..locks.read).filter(|number| holders.is_peers(at(*number)));
        let count = u32::try_from(peers.clone().count()).unwrap_or(u32::MAX);
        let own = (0..locks.read).any(|number| holders.is_own(at(number)));
        match kind {
            AGENT => {
                look.peers = count;
                highest = peers.max().unwrap_or(0);
            }
            WRITER => (look.own.writer, look.writers) = (own, count),
            WORD => (look.own.word, look.words) = (own, count),
            DRAIN => (look.own.drain, look.drains) = (own, count),
            _ => (look.own.waits, look.waiting) = (own, count),
        }
    }
    let at = |number| NUMBERED.len() * locks.read as usize + number as usize;
    locks.permits = (0..permits).filter(|number| holders.is_own(at(*number))).collect();
    locks.own = look.own;
    look.permits = u32::try_from(locks.permits.len()).unwrap_or(u32::MAX);
    look.foreign = holders.foreign();
    while highest * 2 >= locks.read && locks.read < MOST {
        locks.read *= 2;
    }
    session.memory.locks = Some(locks);
    Ok(look)
}

/// Takes the lowest number that no other agent has.
async fn first_free(session: &mut MySqlSession) -> Result<Option<u32>, Fault> {
    let results = session.query(WHAT, &format!("SELECT {}", take(AGENT, 0..MOST))).await?;
    Ok(results.first().and_then(|result| result.cell(0, 0)?.parse().ok()))
}

/// The calls that take and release locks.
fn changes(locks: &Locks, wish: &Wish) -> Vec<String> {
    let mut changes = Vec::new();
    if let Some(number) = locks.number {
        for (kind, held, wanted) in [
            (WRITER, locks.own.writer, wish.marks.writer),
            (WORD, locks.own.word, wish.marks.word),
            (DRAIN, locks.own.drain, wish.marks.drain),
            (WAITS, locks.own.waits, wish.marks.waits),
        ] {
            if held != wanted {
                let name = name(kind, number);
                changes.push(if wanted {
                    format!("GET_LOCK({name}, 0)")
                } else {
                    format!("RELEASE_LOCK({name})")
                });
            }
        }
    }
    let surplus = locks.permits.iter().skip(wish.permits as usize);
    changes.extend(surplus.map(|number| format!("RELEASE_LOCK({})", name(PERMIT, *number))));
    let missing = (wish.permits as usize).saturating_sub(locks.permits.len());
    if missing > 0 && wish.of > 0 {
        let first = wish.first % wish.of;
        let free: Vec<u32> =
            (first..wish.of).chain(0..first).filter(|number| !locks.permits.contains(number)).collect();
        // A session may take its own lock again, so each call tries other numbers.
        for call in 0..missing.min(free.len()) {
            changes.push(take(PERMIT, free.iter().copied().skip(call).step_by(missing)));
        }
    }
    changes
}

/// Takes the first of these locks that is free. The result is its number, or NULL.
fn take(kind: &str, numbers: impl Iterator<Item = u32>) -> String {
    let mut sql = "CASE".to_owned();
    for number in numbers {
        let _ = write!(sql, " WHEN GET_LOCK({}, 0) = 1 THEN {number}", name(kind, number));
    }
    sql + " END"
}

/// At most 64 characters, as MySQL requires.
fn name(kind: &str, number: u32) -> String {
    format!("'rds_lb_agent.{kind}.{number}'")
}

fn incomplete() -> Fault {
    Fault::new(Phase::Query, FaultKind::Protocol, format!("{WHAT}: the server's answer is incomplete"))
}

/// The session that holds each lock.
struct Holders {
    me: u64,
    sessions: HashSet<u64>,
    used: Vec<Option<u64>>,
}

impl Holders {
    fn read(me: &ResultSet, sessions: &ResultSet, used: &ResultSet) -> Option<Self> {
        let ids = (0..sessions.rows.len()).filter_map(|row| sessions.cell(row, 0)?.parse().ok());
        Some(Self {
            me: me.cell(0, 0)?.parse().ok()?,
            sessions: ids.collect(),
            used: used.rows.first()?.iter().skip(1).map(|cell| cell.as_ref()?.parse().ok()).collect(),
        })
    }

    fn holder(&self, index: usize) -> Option<u64> {
        self.used.get(index).copied().flatten()
    }

    fn is_own(&self, index: usize) -> bool {
        self.holder(index) == Some(self.me)
    }

    fn is_peers(&self, index: usize) -> bool {
        self.holder(index).is_some_and(|id| id != self.me && self.sessions.contains(&id))
    }

    fn foreign(&self) -> u32 {
        let foreign = self.used.iter().flatten().filter(|id| !self.sessions.contains(id));
        u32::try_from(foreign.count()).unwrap_or(u32::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_permits_are_tried_by_calls_with_different_numbers() {
        let locks = Locks { number: Some(3), permits: vec![1], own: Marks::default(), read: FIRST };
        let marks = Marks { drain: true, ..Marks::default() };
        let wish = Wish { marks, permits: 3, of: 4, first: 2 };
        assert_eq!(
            changes(&locks, &wish),
            [
                "GET_LOCK('rds_lb_agent.drain.3', 0)",
                "CASE WHEN GET_LOCK('rds_lb_agent.permit.2', 0) = 1 THEN 2 \
                 WHEN GET_LOCK('rds_lb_agent.permit.0', 0) = 1 THEN 0 END",
                "CASE WHEN GET_LOCK('rds_lb_agent.permit.3', 0) = 1 THEN 3 END",
            ]
        );
        let wish = Wish { permits: 0, ..wish };
        assert_eq!(changes(&locks, &wish)[1..], ["RELEASE_LOCK('rds_lb_agent.permit.1')"]);
    }
}
