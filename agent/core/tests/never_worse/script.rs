//! Fault scripts, drawn by chance from a seed.

use std::{fmt, time::Duration};

use crate::{
    random::Random,
    world::{Change, Condition, Hand, Path, Refuses},
};

/// What clients and the agent go through; times are seconds of the script.
#[derive(Clone, Debug)]
pub struct Script {
    pub seed: u64,
    pub proxy: ProxyKind,
    pub servers: usize,
    /// Whether servers show a timeline (PostgreSQL).
    pub timelines: bool,
    pub probe_interval: Duration,
    pub faults: Vec<(Duration, Fault)>,
    pub length: Duration,
}

#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum ProxyKind {
    /// With the recipe's waiting room, or with none and HAProxy's default `retries`.
    Haproxy {
        room: bool,
    },
    Envoy,
}

/// One thing that happens, from its beginning to its end.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    Restart {
        server: usize,
        fast: bool,
        down: Duration,
    },
    /// It hangs, and goes on.
    Freeze {
        server: usize,
        lasts: Duration,
    },
    Lost {
        server: usize,
        lasts: Duration,
    },
    LoginsHang {
        server: usize,
        lasts: Duration,
    },
    Full {
        server: usize,
        lasts: Duration,
    },
    Failover {
        from: usize,
        to: usize,
        gap: Duration,
        old: Old,
    },
    /// A replica becomes a database of its own.
    PromotedAlone {
        server: usize,
    },
    Logins {
        server: Option<usize>,
        refuses: Refuses,
        lasts: Duration,
    },
    AgentPath {
        server: Option<usize>,
        path: Path,
        lasts: Duration,
    },
    NoToken {
        lasts: Duration,
    },
    /// The clock of the agent's host steps: IAM refuses its tokens everywhere, until it is set right.
    ClockStep {
        lasts: Duration,
    },
    Operator {
        server: usize,
        hand: Hand,
        lasts: Duration,
    },
    Reload,
    ProxyRestart {
        down: Duration,
    },
    AgentKilled {
        down: Duration,
    },
    AgentStopped {
        down: Duration,
    },
    AgentFrozen {
        lasts: Duration,
    },
}

/// What becomes of the old writer.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Old {
    /// It stops and comes back as a reader.
    Reader { after: Duration },
    /// Its port is closed for good.
    Dead,
    /// Its host is gone for good.
    Gone,
    /// It hangs for good.
    Frozen,
    /// It hangs, goes on and still claims to be the writer, until it becomes a reader.
    Thaws { after: Duration, claims: Duration },
    /// It takes writes for some time after the promotion.
    Claims { lasts: Duration },
}

const TAIL: Duration = Duration::from_secs(14);
const END: Duration = Duration::from_secs(75);

impl Script {
    /// The script of a seed.
    pub fn of(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let proxy = match random.below(8) {
            0 => ProxyKind::Haproxy { room: false },
            1..=4 => ProxyKind::Haproxy { room: true },
            _ => ProxyKind::Envoy,
        };
        let servers = 2 + usize::from(random.chance(75));
        let mut script = Self {
            seed,
            proxy,
            servers,
            timelines: random.chance(70),
            probe_interval: Duration::from_secs(if random.chance(50) { 3 } else { 30 }),
            faults: Vec::new(),
            length: Duration::ZERO,
        };
        // One kind at a time, so that each end finds what its beginning left; kinds overlap.
        let kinds: [fn(&mut Random, &mut Roles, ProxyKind) -> Fault; 4] =
            [of_servers, of_logins, of_the_agent, of_the_proxy];
        let mut roles = Roles { servers, writer: 0, gone: Vec::new(), former: Vec::new() };
        for (kind, draw) in kinds.into_iter().enumerate() {
            // Envoy without an agent that is restarted has RDS's names: that is the plain arm.
            let rare = kind == 3 && proxy == ProxyKind::Envoy && random.chance(80);
            let often = if kind == 0 { 100 } else { 55 };
            let most = match kind {
                _ if rare || !random.chance(often) => 1,
                0 => 4,
                _ => 2,
            };
            // Some begin before clients are counted: then the muted proxy is left in that state.
            let mut at = if random.chance(10) { Duration::ZERO } else { WARM_UP + random.millis(200, 9_000) };
            for _ in 0..random.below(most) {
                let fault = draw(&mut random, &mut roles, proxy);
                let lasts = fault.lasts();
                if at + lasts + TAIL > END {
                    break;
                }
                script.faults.push((at, fault));
                at = at + lasts + random.millis(300, 9_000);
                if kind == 0 && roles.gone.len() + 1 >= servers {
                    break;
                }
            }
        }
        script.faults.sort_by_key(|(at, _)| *at);
        script.measure();
        script
    }

    /// Sets the length by the faults.
    pub fn measure(&mut self) {
        let ends = self.faults.iter().map(|(at, fault)| *at + fault.lasts());
        self.length = ends.max().unwrap_or(WARM_UP).max(WARM_UP) + TAIL;
    }

    /// All changes, in order.
    pub fn changes(&self) -> Vec<(Duration, Change)> {
        let changes = self
            .faults
            .iter()
            .flat_map(|(at, fault)| fault.changes().into_iter().map(|(after, change)| (*at + after, change)));
        let mut changes: Vec<_> = changes.collect();
        changes.sort_by_key(|(at, _)| *at);
        changes
    }
}

/// How long the agent runs before clients are counted and the muted arm begins.
pub const WARM_UP: Duration = Duration::from_secs(12);

struct Roles {
    servers: usize,
    writer: usize,
    /// Never back, or no replica any more.
    gone: Vec<usize>,
    /// They do not become the writer again: the muted proxy would be right by chance.
    former: Vec<usize>,
}

impl Roles {
    fn any(&self, random: &mut Random) -> usize {
        let alive: Vec<usize> = (0..self.servers).filter(|index| !self.gone.contains(index)).collect();
        pick(random, &alive)
    }

    fn reader(&self, random: &mut Random) -> usize {
        let readers: Vec<usize> =
            (0..self.servers).filter(|index| !self.gone.contains(index) && *index != self.writer).collect();
        pick(random, &readers)
    }
}

fn pick(random: &mut Random, from: &[usize]) -> usize {
    let below = u64::try_from(from.len()).expect("small");
    from[usize::try_from(random.below(below)).expect("small")]
}

fn of_servers(random: &mut Random, roles: &mut Roles, _: ProxyKind) -> Fault {
    let server = roles.any(random);
    match random.below(24) {
        0..=6 => Fault::Restart { server, fast: random.chance(60), down: random.millis(200, 9_000) },
        7 | 8 => Fault::Freeze { server, lasts: random.millis(500, 12_000) },
        9 | 10 => Fault::Lost { server, lasts: random.millis(500, 12_000) },
        11 | 12 => Fault::LoginsHang { server, lasts: random.millis(2_000, 25_000) },
        13 | 14 => Fault::Full { server, lasts: random.millis(2_000, 20_000) },
        15 => {
            let server = roles.reader(random);
            roles.gone.push(server);
            Fault::PromotedAlone { server }
        }
        _ => {
            let (from, to) = (roles.writer, roles.reader(random));
            if roles.former.contains(&to) {
                return Fault::Freeze { server, lasts: random.millis(500, 12_000) };
            }
            roles.former.push(from);
            let gap = random.millis(300, 8_000);
            let after = gap + random.millis(200, 6_000);
            let old = match random.below(6) {
                0 | 1 => Old::Reader { after },
                2 => Old::Dead,
                3 => Old::Gone,
                4 => Old::Frozen,
                _ if random.chance(50) => Old::Thaws { after, claims: random.millis(500, 8_000) },
                _ => Old::Claims { lasts: random.millis(1_000, 10_000) },
            };
            if matches!(old, Old::Dead | Old::Gone | Old::Frozen) {
                roles.gone.push(from);
            }
            roles.writer = to;
            Fault::Failover { from, to, gap, old }
        }
    }
}

fn of_logins(random: &mut Random, roles: &mut Roles, _: ProxyKind) -> Fault {
    let one = usize::try_from(random.below(u64::try_from(roles.servers).expect("small"))).expect("small");
    let server = random.chance(60).then_some(one);
    let lasts = random.millis(1_000, 25_000);
    match random.below(4) {
        0 => Fault::NoToken { lasts },
        1 => Fault::ClockStep { lasts },
        _ => {
            let refuses = match random.below(5) {
                0 | 1 => Refuses::Agent,
                2 => Refuses::Application,
                _ => Refuses::All,
            };
            Fault::Logins { server, refuses, lasts }
        }
    }
}

fn of_the_agent(random: &mut Random, roles: &mut Roles, proxy: ProxyKind) -> Fault {
    let one = usize::try_from(random.below(u64::try_from(roles.servers).expect("small"))).expect("small");
    // What an Envoy is sent is where the agent connects to: their paths are one.
    let kinds = if proxy == ProxyKind::Envoy { 3 } else { 5 };
    match random.below(kinds) {
        0 => Fault::AgentKilled { down: random.millis(300, 10_000) },
        1 => Fault::AgentStopped { down: random.millis(300, 10_000) },
        2 => Fault::AgentFrozen { lasts: random.millis(500, 12_000) },
        _ => Fault::AgentPath {
            server: random.chance(70).then_some(one),
            path: if random.chance(60) { Path::Refused } else { Path::Silent },
            lasts: random.millis(1_000, 20_000),
        },
    }
}

fn of_the_proxy(random: &mut Random, roles: &mut Roles, proxy: ProxyKind) -> Fault {
    let one = usize::try_from(random.below(u64::try_from(roles.servers).expect("small"))).expect("small");
    if proxy == ProxyKind::Envoy {
        return Fault::ProxyRestart { down: random.millis(100, 2_000) };
    }
    match random.below(6) {
        0 => Fault::ProxyRestart { down: random.millis(100, 2_000) },
        1 | 2 => Fault::Reload,
        _ => Fault::Operator {
            server: one,
            hand: [Hand::Maint, Hand::Drain, Hand::Weight0][usize::try_from(random.below(3)).expect("small")],
            lasts: random.millis(1_000, 20_000),
        },
    }
}

impl Fault {
    pub fn lasts(&self) -> Duration {
        self.changes().iter().map(|(at, _)| *at).max().unwrap_or_default()
    }

    fn changes(&self) -> Vec<(Duration, Change)> {
        use Change as C;
        let now = Duration::ZERO;
        let ms = Duration::from_millis;
        let condition = |server, condition, lasts| {
            vec![(now, C::Condition(server, condition)), (lasts, C::Condition(server, Condition::Runs))]
        };
        match *self {
            Self::Restart { server, fast, down } => {
                let mut changes = vec![(now, C::Cut(server, fast))];
                if fast {
                    changes.push((now, C::Condition(server, Condition::TurnsAway)));
                }
                changes.extend([
                    (if fast { ms(100) } else { now }, C::Condition(server, Condition::Refuses)),
                    (down + ms(100), C::Condition(server, Condition::TurnsAway)),
                    (down + ms(180), C::Condition(server, Condition::Runs)),
                ]);
                changes
            }
            Self::Freeze { server, lasts } => condition(server, Condition::Frozen, lasts),
            Self::Lost { server, lasts } => condition(server, Condition::Drops, lasts),
            Self::LoginsHang { server, lasts } => condition(server, Condition::LoginsHang, lasts),
            Self::Full { server, lasts } => condition(server, Condition::Full, lasts),
            Self::Failover { from, to, gap, old } => failover(from, to, gap, old),
            Self::PromotedAlone { server } => vec![(now, C::Claims(server, true))],
            Self::Logins { server, refuses, lasts } => {
                vec![(now, C::Logins(server, refuses)), (lasts, C::Logins(server, Refuses::None))]
            }
            Self::ClockStep { lasts } => {
                vec![(now, C::Logins(None, Refuses::Agent)), (lasts, C::Logins(None, Refuses::None))]
            }
            Self::AgentPath { server, path, lasts } => {
                vec![(now, C::AgentPath(server, path)), (lasts, C::AgentPath(server, Path::Open))]
            }
            Self::NoToken { lasts } => vec![(now, C::NoToken(true)), (lasts, C::NoToken(false))],
            Self::Operator { server, hand, lasts } => {
                let undo = if hand == Hand::Weight0 { Hand::Weight1 } else { Hand::Ready };
                vec![(now, C::Operator(server, hand)), (lasts, C::Operator(server, undo))]
            }
            Self::Reload => vec![(now, C::Reload)],
            Self::ProxyRestart { down } => vec![(now, C::ProxyDown(true)), (down, C::ProxyDown(false))],
            Self::AgentKilled { down } => vec![(now, C::AgentKilled), (down, C::AgentStarted)],
            Self::AgentStopped { down } => vec![(now, C::AgentStopped), (down, C::AgentStarted)],
            Self::AgentFrozen { lasts } => {
                vec![(now, C::AgentFrozen(true)), (lasts, C::AgentFrozen(false))]
            }
        }
    }
}

fn failover(from: usize, to: usize, gap: Duration, old: Old) -> Vec<(Duration, Change)> {
    use Change as C;
    let now = Duration::ZERO;
    let ms = Duration::from_millis;
    let rejoins = |at: Duration| {
        [
            (at, C::Cut(from, true)),
            (at, C::Condition(from, Condition::TurnsAway)),
            (at + ms(100), C::Condition(from, Condition::Refuses)),
            (at + ms(100), C::Claims(from, false)),
            (at + ms(900), C::Condition(from, Condition::Runs)),
        ]
    };
    let stops = |condition| vec![(now, C::Cut(from, false)), (now, C::Condition(from, condition))];
    let mut changes = match old {
        Old::Reader { after } => {
            let mut changes = stops(Condition::Refuses);
            changes.extend([
                (after, C::Claims(from, false)),
                (after, C::Condition(from, Condition::TurnsAway)),
                (after + ms(100), C::Condition(from, Condition::Runs)),
            ]);
            changes
        }
        Old::Dead => stops(Condition::Refuses),
        Old::Gone => vec![(now, C::Condition(from, Condition::Drops))],
        Old::Frozen => vec![(now, C::Condition(from, Condition::Frozen))],
        Old::Thaws { after, claims } => {
            let mut changes = vec![
                (now, C::Condition(from, Condition::Frozen)),
                (after, C::Condition(from, Condition::Runs)),
            ];
            changes.extend(rejoins(after + claims));
            changes
        }
        Old::Claims { lasts } => rejoins(gap + lasts).to_vec(),
    };
    changes.extend([(gap, C::Claims(to, true)), (gap, C::Writer(to))]);
    changes.sort_by_key(|(at, _)| *at);
    changes
}

impl fmt::Display for Script {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "seed {} ({:?}, {} servers, timelines {}, probe_interval {:?}, clients from {:?} to {:?})",
            self.seed, self.proxy, self.servers, self.timelines, self.probe_interval, WARM_UP, self.length
        )?;
        for (at, fault) in &self.faults {
            writeln!(f, "  {:>7.3} s  {fault:?}", at.as_secs_f64())?;
        }
        Ok(())
    }
}
