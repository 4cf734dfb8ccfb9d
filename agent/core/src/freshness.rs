//! How old something may be and still count: every such limit in one place.
//!
//! The limits differ because the costs differ. Acting on old evidence can cut a transaction, so
//! closes ask for the freshest. Answering with an old `down` takes a server away, so health answers
//! turn neutral early. An old `up` costs little, so it is kept longer.

use std::time::Duration;

/// The agent plans and publishes at least once a second. A gap of this length means that the
/// process was suspended or starved: a frozen virtual machine, a debugger, a host without CPU time.
/// What was seen before the gap may have changed since, so nothing before it counts as evidence: no
/// session is closed on it, and no Envoy health check passes a writer on it. Three missed rounds
/// leave room for a busy host, and are less than a failover takes.
pub const STOOD_STILL: Duration = Duration::from_secs(3);

/// Whether a gap between two rounds means that the process stood still.
pub fn stood_still(gap: Duration) -> bool {
    gap >= STOOD_STILL
}

/// A snapshot is published every second. An agent-check answer must not repeat a `down` from an
/// older one than this: HAProxy keeps the last answer, so a decider that hangs would hold a server
/// down that has recovered. The same limit holds for Envoy checks that may wait for an answer:
/// after a pause of the process, the first check must not pass on what was true before.
const SNAPSHOT_OLD: Duration = Duration::from_secs(3);

/// An answer over HTTP, and an Envoy check that passes while nothing is known, fall back to 200
/// after this. They are longer than [`SNAPSHOT_OLD`] because their callers ask again and again and
/// keep nothing: an old 503 costs one interval, where flapping between 503 and 200 on a slow host
/// would move clients around. `/livez` fails after the same time, so that a supervisor restarts an
/// agent that no longer decides.
const SNAPSHOT_STUCK: Duration = Duration::from_secs(15);

/// How far a snapshot may be believed.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Freshness {
    /// It describes the present.
    Fresh,
    /// Some rounds are missing: the process may have stood still.
    Old,
    /// The decider hangs: it is no evidence of anything.
    Stuck,
}

impl Freshness {
    /// Of a snapshot of this age.
    pub fn of(age: Duration) -> Self {
        match age {
            age if age < SNAPSHOT_OLD => Self::Fresh,
            age if age < SNAPSHOT_STUCK => Self::Old,
            _ => Self::Stuck,
        }
    }
}

/// After a start, endpoints of a cluster are withheld for this long unless every server of it has
/// been seen by this agent. Envoy keeps the endpoints of the previous agent meanwhile, which may
/// have taken a server out for a reason that this one has yet to see. It is long enough for one
/// login with a cold token on each instance.
pub const STARTING: Duration = Duration::from_secs(10);

/// A source (a proxy's admin flags, a session table) without an answer for this long is lost.
/// Drains do not begin and sessions are held: the proxy may have been changed by an operator, and a
/// session may have ended and its port been reused. Flags are read twice a second and tables every
/// second at the latest while sessions are due, so this is several missed answers.
pub const SOURCE_LOST: Duration = Duration::from_secs(5);

/// A close by the database acts on a row no older than this; an older one is watched first. The
/// database checks identity and idleness again in the closing statement, so this limit only saves
/// pointless attempts.
pub const ROW_FOR_DATABASE: Duration = Duration::from_millis(500);

/// A close by the proxy acts on a row no older than this. The proxy cannot look again, and what the
/// client sends between the look and the close is lost, so this is as short as a look and a command
/// on loopback allow.
pub const ROW_FOR_PROXY: Duration = Duration::from_millis(30);

/// A successful login of the agent's own is proof for this long that a client which is closed now
/// can log in again. Longer, and a failing IAM or a full server would go unnoticed while sessions
/// are closed into it.
pub const LOGIN_PROOF: Duration = Duration::from_secs(10);

/// While sessions are being closed, the next login is requested when the last is this old: early
/// enough that it ends before [`LOGIN_PROOF`] runs out and no close has to wait.
pub const LOGIN_RENEWAL: Duration = Duration::from_secs(6);

/// A listing of a proxy says something about a session only if it was made this long after the
/// session began. The begin is known no better than one poll takes; an earlier listing may show the
/// previous session on the same port.
pub const LISTING_SETTLED: Duration = Duration::from_secs(1);

/// How long a silent writer on a higher timeline keeps out one on a lower timeline. Longer than a
/// stall or a restart, so that an old writer that comes back does not take writes meanwhile. One
/// that stays silent is gone: a restored or switched-over database starts its own timeline, which
/// need not be the higher one.
pub const NEWER_TIMELINE: Duration = Duration::from_secs(300);

/// Where the last writer answers as a writer this long after another instance began to claim the role, the other
/// is a database of its own. In a failover the old writer is stopped first, and the two claims are seen
/// together for one or two looks at most: readers are asked every second.
pub const TWO_WRITERS: Duration = Duration::from_secs(3);

/// Where the agent cannot look (no token, no name resolution), a refused connection counts for this long. A
/// server that restarts is back after seconds, and clients would go on waiting for it.
pub const UNSEEN_REFUSAL: Duration = Duration::from_secs(5);

/// What was last seen of an instance, its role or something against it, counts for this long, or for
/// two probe intervals if that is longer. After it the way to the instance may be broken on the
/// agent's side (no token, no name resolution), and neither a `down` nor a role must last until that
/// is repaired: an instance that cannot be asked may have been promoted.
pub const TROUBLE: Duration = Duration::from_secs(60);
