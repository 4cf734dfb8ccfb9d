//! Locks by which agents meet: session-level advisory locks, which need no privilege.
//!
//! Marks are shared locks, so that any number of agents can hold one; permits are exclusive. `pg_locks` shows
//! who holds them. They exclude one another only among sessions that are connected to the same database.

use agent_core::{
    Fault,
    peers::{Look, Marks, Wish},
};

use super::{
    memory::Locks,
    session::{PostgresqlSession, column},
};

/// What the queries do, for the message of a fault.
const WHAT: &str = "reading the locks of agents";

/// The first key of all locks, `rdlb` as a number. The second key:
const AGENT: i32 = 0;
const WRITER: i32 = 1;
const WORD: i32 = 2;
const DRAIN: i32 = 3;
const WAITS: i32 = 4;
/// The permit 0; the others follow.
const PERMIT: i32 = 16;

const SET: &str = "\
    SELECT CASE WHEN mark.wanted THEN pg_try_advisory_lock_shared(1919183970, mark.key) \
                ELSE pg_advisory_unlock_shared(1919183970, mark.key) END \
      FROM unnest($1::int4[], $2::bool[]) AS mark (key, wanted)";

const RELEASE: &str = "\
    SELECT pg_advisory_unlock(1919183970, permit.key) FROM unnest($1::int4[]) AS permit (key)";

/// Stops at the first `$2` permits that it gets.
const TAKE: &str = "\
    SELECT permit.key FROM unnest($1::int4[]) AS permit (key) \
     WHERE pg_try_advisory_lock(1919183970, permit.key) LIMIT $2";

/// For each lock: this session's, those of other agents, those of other users, those in other databases.
/// Holders are compared by the user who has logged in, and one that has just ended counts for nothing.
const LIST: &str = "\
    SELECT held.key, bool_or(held.own), \
           count(*) FILTER (WHERE NOT held.own AND held.same_user AND held.here)::int4, \
           count(*) FILTER (WHERE NOT held.same_user AND held.here)::int4, \
           count(*) FILTER (WHERE held.same_user AND NOT held.here)::int4 \
      FROM (SELECT l.objid::int8::int4 AS key, l.pid = pg_backend_pid() AS own, l.database = me.datid AS here, \
                   other.usesysid = me.usesysid AS same_user \
              FROM pg_locks AS l \
              JOIN pg_stat_get_activity(NULL) AS other ON other.pid = l.pid \
             CROSS JOIN pg_stat_get_activity(pg_backend_pid()) AS me \
             WHERE l.locktype = 'advisory' AND l.classid = 1919183970 AND l.objsubid = 2 AND l.granted \
               AND l.objid < 1000000) AS held \
     GROUP BY held.key";

pub(super) async fn meet(session: &mut PostgresqlSession, wish: &Wish) -> Result<Look, Fault> {
    let own = session.peers.as_ref().map(|locks| locks.look.own).unwrap_or_default();
    let (mut keys, mut wanted) = (Vec::new(), Vec::new());
    if session.peers.is_none() {
        (keys, wanted) = (vec![AGENT], vec![true]);
    }
    for (key, had, has) in marks(own, wish.marks) {
        if had != has {
            keys.push(key);
            wanted.push(has);
        }
    }
    if !keys.is_empty() {
        session.rows(WHAT, SET, &[&keys, &wanted]).await?;
    }
    let held = session.peers.as_ref().map(|locks| locks.permits.clone()).unwrap_or_default();
    let surplus: Vec<i32> = held.iter().skip(wish.permits as usize).copied().collect();
    if !surplus.is_empty() {
        session.rows(WHAT, RELEASE, &[&surplus]).await?;
    }
    let missing = (wish.permits as usize).saturating_sub(held.len());
    if let Ok(missing) = i64::try_from(missing)
        && missing > 0
        && wish.of > 0
    {
        let first = wish.first % wish.of;
        let numbers = (first..wish.of).chain(0..first).filter_map(|number| i32::try_from(number).ok());
        let free: Vec<i32> =
            numbers.map(|number| PERMIT.saturating_add(number)).filter(|key| !held.contains(key)).collect();
        session.rows(WHAT, TAKE, &[&free, &missing]).await?;
    }
    let mut locks = Locks::default();
    let look = &mut locks.look;
    for row in session.rows(WHAT, LIST, &[]).await? {
        let (key, own): (i32, bool) = (column(&row, 0)?, column(&row, 1)?);
        let number = |index| column::<i32>(&row, index).map(|number| u32::try_from(number).unwrap_or(0));
        let (peers, foreign, apart) = (number(2)?, number(3)?, number(4)?);
        look.foreign += foreign;
        match key {
            AGENT => (look.peers, look.apart) = (peers, apart),
            WRITER => (look.own.writer, look.writers) = (own, peers),
            WORD => (look.own.word, look.words) = (own, peers),
            DRAIN => (look.own.drain, look.drains) = (own, peers),
            WAITS => (look.own.waits, look.waiting) = (own, peers),
            key if own => locks.permits.push(key),
            _ => {}
        }
    }
    look.permits = u32::try_from(locks.permits.len()).unwrap_or(u32::MAX);
    let look = locks.look;
    session.peers = Some(locks);
    Ok(look)
}

/// The key of each mark, whether it is held, and whether it is wanted.
fn marks(held: Marks, wanted: Marks) -> [(i32, bool, bool); 4] {
    [
        (WRITER, held.writer, wanted.writer),
        (WORD, held.word, wanted.word),
        (DRAIN, held.drain, wanted.drain),
        (WAITS, held.waits, wanted.waits),
    ]
}
