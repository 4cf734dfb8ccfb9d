//! How near a server of the MySQL family is to blocking the proxy's address, and when the
//! agent has to log in from there to prevent it.
//!
//! Such a server counts the connections that end half-way through the login against the
//! address they come from. At `max_connect_errors` it blocks that address (error 1129), for
//! every user, until it is flushed. What it sees of a proxy's clients is the proxy's
//! address, so a few clients that fail, or a health check that only opens a connection,
//! shut out everybody behind the proxy. One full login from the same address takes its
//! count back to 0.
//!
//! Pure: [`HostBlockGuard`] takes in what the server counted and says what to do. The login
//! itself, and its place in the login budget, are the task's.
//!
//! Not a judge of the instance: a blocked address says nothing of the server's health.

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use serde::Serialize;

use crate::Time;

/// Between two logins for one address. Each is IAM's work too.
pub const RESET_GAP: Duration = Duration::from_secs(2);

/// The same, when logins have been seen to change nothing.
const RESET_GAP_MOST: Duration = Duration::from_secs(60);

/// Logins that changed nothing before that is reported: between the login and the next look,
/// others may have failed as often as before.
const UNHELPED: u32 = 2;

/// How often it is looked at while nothing is near.
const LOOK: Duration = Duration::from_secs(1);

/// How often while something is.
const LOOK_NEAR: Duration = Duration::from_millis(250);

/// How often the settings of a server that blocks no host are read.
const LOOK_NEVER: Duration = Duration::from_secs(60);

/// Trouble of one address that continues is reported this often.
const TELL: Duration = Duration::from_secs(300);

/// What a server counts of failed connections.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ConnectErrors {
    /// `max_connect_errors`: so many in a row block an address.
    pub limit: u64,
    pub counted: Counted,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Counted {
    /// By address. One without errors may be left out.
    ByAddress {
        /// The agent's own address as the server sees it, if it can say.
        own: Option<IpAddr>,
        addresses: BTreeMap<IpAddr, AddressErrors>,
    },
    /// The server does count by address, and the agent can only see all failures together.
    Together {
        /// Connections that failed since the server started, some of which are not counted
        /// against an address.
        aborted: u64,
        /// Why no more can be seen.
        why: Unseen,
    },
    /// The server blocks no host: it resolves no names, or remembers no hosts.
    Never,
}

/// What is counted against one address.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct AddressErrors {
    /// Failures since its last full login. They stay at the limit once it is blocked.
    pub errors: u64,
    /// Connections refused because it was blocked, since the counts were last flushed.
    pub refused: u64,
}

/// Why the counts of addresses cannot be seen.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Unseen {
    PerformanceSchemaOff,
    /// The agent's user may not read `performance_schema.host_cache`.
    NotGranted,
}

/// How the agent can log in from an address of the proxy's.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Way {
    /// Its logins come from there anyway.
    Own,
    /// It is an address of the agent's host.
    ThisHost,
    /// None: the proxy is elsewhere.
    None,
}

/// How near an address is to being blocked.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Nearness {
    /// Fewer than half of the errors that it takes.
    #[default]
    Far,
    /// Half of them or more.
    Near,
    Blocked,
}

#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum News {
    /// An address has come near.
    Near {
        address: IpAddr,
        /// What is counted against it.
        errors: u64,
        /// Whether the agent can reset that.
        way: Way,
        /// Whether it has not been reported for a while.
        loud: bool,
    },
    /// The agent's login has reset the count.
    Reset {
        address: IpAddr,
        /// What was counted when the login was asked for.
        before: u64,
        /// And what after it.
        after: u64,
        /// Whether it was reported that the address was near its limit.
        loud: bool,
    },
    /// The agent has logged in, and the count has not gone down.
    NotReset {
        address: IpAddr,
        /// What is counted against it.
        errors: u64,
    },
    /// An address is blocked.
    Blocked {
        address: IpAddr,
        /// Connections refused so far.
        refused: u64,
    },
    /// It is not blocked any more.
    Unblocked { address: IpAddr },
    /// From now on the counts of addresses cannot be seen.
    CannotTell(Unseen),
    /// Half of the limit has failed since the last requested login, of any client.
    Growing {
        aborted: u64,
        /// Whether it has not been reported for a while.
        loud: bool,
    },
}

/// What to do after a look.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Look {
    /// Log in from here now: one full login, and out again.
    pub reset: Option<Reset>,
    pub news: Vec<News>,
    /// When to look again.
    pub next: Duration,
}

/// A login to reset a count.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Reset {
    /// From wherever the agent's logins come from.
    Own,
    /// From this address of its host.
    From(IpAddr),
}

/// The guard of one instance.
#[derive(Debug, Default)]
pub struct HostBlockGuard {
    watched: BTreeMap<IpAddr, Watched>,
    /// The failures of all when a login was last asked for because of them.
    base: Option<u64>,
    unseen: Option<Unseen>,
    reported_at: Option<Time>,
    last_reset: Option<Time>,
}

/// One of the proxy's addresses.
#[derive(Debug, Default)]
struct Watched {
    nearness: Nearness,
    errors: u64,
    /// When a login was last asked for.
    last_reset: Option<Time>,
    /// What was counted then, until the next look shows what it changed.
    asked: Option<u64>,
    /// Logins in a row that changed nothing.
    unhelped: u32,
    /// When it was last reported to be near the limit.
    reported_at: Option<Time>,
    /// Whether the last time was reported.
    loud: bool,
}

impl HostBlockGuard {
    /// Takes in what the server counted. `ours` are the addresses that matter, and how the
    /// agent gets there; all others are of other people's hosts.
    pub fn look(&mut self, now: Time, seen: &ConnectErrors, ours: &BTreeMap<IpAddr, Way>) -> Look {
        let mut look = Look { next: LOOK, ..Look::default() };
        match &seen.counted {
            Counted::ByAddress { addresses, .. } => {
                self.unseen = None;
                self.base = None;
                self.by_address(now, seen.limit, addresses, ours, &mut look);
            }
            Counted::Together { aborted, why } => {
                self.watched.clear();
                self.together(now, seen.limit, *aborted, *why, &mut look);
            }
            Counted::Never => {
                *self = Self::default();
                look.next = LOOK_NEVER;
            }
        }
        look
    }

    /// The addresses that are watched, what is counted against them, and how near they are.
    pub fn addresses(&self) -> impl Iterator<Item = (IpAddr, u64, Nearness)> {
        self.watched.iter().map(|(address, watched)| (*address, watched.errors, watched.nearness))
    }

    fn by_address(
        &mut self,
        now: Time,
        limit: u64,
        addresses: &BTreeMap<IpAddr, AddressErrors>,
        ours: &BTreeMap<IpAddr, Way>,
        look: &mut Look,
    ) {
        for address in ours.keys() {
            self.watched.entry(*address).or_default();
        }
        let mut nearest: Option<(u64, IpAddr, Way)> = None;
        for (&address, watched) in &mut self.watched {
            let counted = addresses.get(&address).copied().unwrap_or_default();
            let way = ours.get(&address).copied().unwrap_or(Way::None);
            look.news.extend(watched.see(now, address, counted, limit, way));
            if watched.nearness == Nearness::Near {
                look.next = LOOK_NEAR;
                let more = nearest.is_none_or(|(errors, ..)| counted.errors > errors);
                if way != Way::None && watched.may_reset(now) && more {
                    nearest = Some((counted.errors, address, way));
                }
            }
        }
        self.watched.retain(|address, watched| ours.contains_key(address) || watched.matters(now));
        let Some((errors, address, way)) = nearest.filter(|_| self.apart(now)) else { return };
        if let Some(watched) = self.watched.get_mut(&address) {
            watched.last_reset = Some(now);
            watched.asked = Some(errors);
        }
        self.last_reset = Some(now);
        look.reset = Some(if way == Way::Own { Reset::Own } else { Reset::From(address) });
    }

    /// Without addresses, all failures are taken for the proxy's: a login too many is cheap.
    fn together(&mut self, now: Time, limit: u64, aborted: u64, why: Unseen, look: &mut Look) {
        if self.unseen.replace(why) != Some(why) {
            look.news.push(News::CannotTell(why));
        }
        // A server that was started anew counts from 0.
        let base = self.base.filter(|base| *base <= aborted).unwrap_or(aborted);
        self.base = Some(base);
        let grown = aborted - base;
        if grown > 0 && half(grown, limit) {
            look.next = LOOK_NEAR;
            if self.last_reset.is_none_or(|last| now.since(last) >= RESET_GAP) {
                self.base = Some(aborted);
                self.last_reset = Some(now);
                let loud = old(self.reported_at, now);
                if loud {
                    self.reported_at = Some(now);
                }
                look.news.push(News::Growing { aborted: grown, loud });
                look.reset = Some(Reset::Own);
            }
        }
    }

    /// Several addresses are not reset in one burst.
    fn apart(&self, now: Time) -> bool {
        self.last_reset.is_none_or(|last| now.since(last) >= LOOK_NEAR)
    }
}

impl Watched {
    fn see(&mut self, now: Time, address: IpAddr, counted: AddressErrors, limit: u64, way: Way) -> Vec<News> {
        let AddressErrors { errors, refused } = counted;
        let mut news = Vec::new();
        if let Some(before) = self.asked.take() {
            if errors < before {
                self.unhelped = 0;
                news.push(News::Reset { address, before, after: errors, loud: self.loud });
            } else {
                self.unhelped = self.unhelped.saturating_add(1);
                if self.unhelped == UNHELPED {
                    news.push(News::NotReset { address, errors });
                }
            }
        }
        let before = self.nearness;
        self.nearness = nearness(errors, limit);
        self.errors = errors;
        if before == Nearness::Blocked && self.nearness != before {
            news.push(News::Unblocked { address });
        }
        if self.nearness != before {
            match self.nearness {
                Nearness::Blocked => news.push(News::Blocked { address, refused }),
                Nearness::Near => {
                    self.loud = old(self.reported_at, now);
                    if self.loud {
                        self.reported_at = Some(now);
                    }
                    news.push(News::Near { address, errors, way, loud: self.loud });
                }
                Nearness::Far => self.unhelped = 0,
            }
        }
        news
    }

    /// Whether something is counted against it, or was until lately.
    fn matters(&self, now: Time) -> bool {
        let lately = |at: Option<Time>| at.is_some_and(|at| now.since(at) < TELL);
        self.errors > 0 || lately(self.last_reset) || lately(self.reported_at)
    }

    fn may_reset(&self, now: Time) -> bool {
        let gap = if self.unhelped < UNHELPED {
            RESET_GAP
        } else {
            RESET_GAP.saturating_mul(1 << self.unhelped.min(5)).min(RESET_GAP_MOST)
        };
        self.last_reset.is_none_or(|last| now.since(last) >= gap)
    }
}

/// Whether an event that was last reported at this time may be reported again.
fn old(reported_at: Option<Time>, now: Time) -> bool {
    reported_at.is_none_or(|reported_at| now.since(reported_at) >= TELL)
}

/// How near so many errors are.
fn nearness(errors: u64, limit: u64) -> Nearness {
    if errors >= limit {
        Nearness::Blocked
    } else if errors > 0 && half(errors, limit) {
        Nearness::Near
    } else {
        Nearness::Far
    }
}

/// Whether this is half of the limit or more.
fn half(errors: u64, limit: u64) -> bool {
    errors.saturating_mul(2) >= limit
}
