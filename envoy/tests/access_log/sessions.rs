//! The table of live sessions.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use envoy::access_log::{Event, Kind, Limits, Origin, Sessions, sessions::Taken};
use proptest::prelude::*;
use tokio::time::Instant;

use super::event;

const INTERVAL: Duration = Duration::from_secs(10);
/// An interval, and the time for what it tells to arrive.
const ROUND: Duration = Duration::from_millis(12_500);

/// An Envoy of this name, of a host of its own.
fn node(name: &str) -> Origin {
    of_peer(name, name)
}

fn of_peer(name: &str, peer: &str) -> Origin {
    Origin { node: name.into(), peer: peer.into() }
}

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// The hosts' clock at the beginning of a test.
const EPOCH: Duration = Duration::from_secs(1_795_383_674);

/// A table, the time, and a clock that is right.
struct Scene {
    table: Sessions,
    start: Instant,
}

impl Scene {
    fn new(limits: Limits) -> (Self, Instant) {
        let start = Instant::now();
        (Self { table: Sessions::new(limits), start }, start)
    }

    /// Tells the table of an event whose session began as long ago as it has lasted.
    fn observe(&mut self, origin: &Origin, now: Instant, event: &Event) -> Taken {
        let clock = EPOCH + now.duration_since(self.start);
        let started = clock.saturating_sub(event.lasted.unwrap_or_default());
        // Over gRPC, only ends tell how long it was.
        let event = Event { started, lasted: None, ..event.clone() };
        self.table.observe(origin, now, clock, &event)
    }
}

impl std::ops::Deref for Scene {
    type Target = Sessions;
    fn deref(&self) -> &Sessions {
        &self.table
    }
}

impl std::ops::DerefMut for Scene {
    fn deref_mut(&mut self) -> &mut Sessions {
        &mut self.table
    }
}

fn ids(sessions: &[envoy::access_log::Session]) -> BTreeSet<String> {
    sessions.iter().map(|session| session.id.to_string()).collect()
}

#[test]
fn it_is_complete_after_one_whole_interval_of_unbroken_streams() {
    let ((mut table, now), one) = (Scene::new(Limits::default()), node("one"));
    assert!(table.sweep(&one, now).is_none(), "nothing is known of it");
    assert!(table.opened(&one, now));
    table.observe(&one, now + secs(8), &event(Kind::Periodic, "a", 1, secs(3_600)));
    assert!(table.sweep(&one, now + secs(9)).is_none(), "others may not have been logged yet");
    let at = now + ROUND;
    assert_eq!(table.complete_since(&one), Some(at));
    let sessions = table.sweep(&one, at).unwrap();
    assert_eq!(ids(&sessions), ["a".to_owned()].into());
    assert_eq!(sessions[0].age, secs(3_592) + ROUND, "as old as it was, and older since");
    // Another worker thread has something to say for the first time.
    assert!(table.opened(&one, at));
    assert!(table.sweep(&one, at).is_some());
    // One of them breaks off: what it would have said is missed.
    table.closed(&one, 1, at + secs(1));
    assert!(table.sweep(&one, at + secs(2)).is_none());
    assert!(table.sweep(&one, at + secs(1) + ROUND).is_some());
    table.missed(at + secs(30));
    assert!(table.sweep(&one, at + secs(31)).is_none(), "so after a pause of the agent's own");
}

#[test]
fn an_envoy_that_goes_away_leaves_its_sessions_for_a_while() {
    let ((mut table, now), one) = (Scene::new(Limits::default()), node("one"));
    table.opened(&one, now);
    table.observe(&one, now, &event(Kind::Connected, "a", 1, secs(0)));
    let gone = now + secs(20);
    table.observe(&one, gone, &event(Kind::Periodic, "a", 1, secs(20)));
    table.closed(&one, 0, gone);
    assert!(table.sweep(&one, gone + ROUND).is_none(), "it is not to be trusted");
    assert_eq!(ids(&table.sessions(&one, gone + ROUND)).len(), 1, "and not gone");
    // It is back, with the same sessions.
    table.opened(&one, gone + ROUND);
    table.observe(&one, gone + ROUND + secs(1), &event(Kind::Periodic, "a", 1, secs(33)));
    assert_eq!(table.sweep(&one, gone + ROUND * 2).unwrap().len(), 1);
    table.closed(&one, 0, gone + ROUND * 2);
    table.expire(gone + ROUND * 6);
    assert!(table.is_empty() && table.origins().count() == 0, "gone for good");
}

#[test]
fn a_session_without_entries_is_removed() {
    let ((mut table, now), one) = (Scene::new(Limits::default()), node("one"));
    table.opened(&one, now);
    table.observe(&one, now, &event(Kind::Connected, "quiet", 1, secs(0)));
    for round in 1..=5 {
        table.observe(&one, now + INTERVAL * round, &event(Kind::Periodic, "logged", 2, INTERVAL * round));
    }
    // It may be over, and its port another's: it is kept for a while, and not listed.
    assert_eq!(ids(&table.sweep(&one, now + ROUND * 3).unwrap()), ["logged".to_owned()].into());
    assert_eq!(ids(&table.sessions(&one, now + ROUND * 3)).len(), 2);
    assert_eq!(ids(&table.sweep(&one, now + secs(51)).unwrap()), ["logged".to_owned()].into());
}

#[test]
fn a_new_session_on_the_same_port_ends_the_old_one() {
    let (old, new) = (event(Kind::Periodic, "old", 1, secs(5)), event(Kind::Periodic, "new", 1, secs(0)));
    for (first, second) in [(&old, &new), (&new, &old)] {
        let ((mut table, now), one) = (Scene::new(Limits::default()), node("one"));
        table.observe(&one, now, first);
        table.observe(&one, now, second);
        assert_eq!(ids(&table.sessions(&one, now)), ["new".to_owned()].into());
        assert_eq!(table.len(), 1);
    }
}

#[test]
fn an_entry_that_comes_after_the_end_brings_nothing_back() {
    let ((mut table, now), one) = (Scene::new(Limits::default()), node("one"));
    table.opened(&one, now);
    assert_eq!(table.observe(&one, now, &event(Kind::End, "a", 1, secs(1))), Taken::Ignored);
    assert_eq!(table.observe(&one, now, &event(Kind::Connected, "a", 1, secs(0))), Taken::Ignored);
    assert!(table.is_empty());
}

#[test]
fn clocks_that_differ_are_compared_where_an_entry_shows_how() {
    let (one, now) = (node("one"), Instant::now());
    for skew in [0_i64, 3_600, -3_600] {
        let mut table = Sessions::new(Limits { same_clock: false, ..Limits::default() });
        table.opened(&one, now);
        let envoys = secs(EPOCH.as_secs().checked_add_signed(skew).unwrap());
        let at = |since: u64, event: Event| (now + secs(since), EPOCH + secs(since), event);
        let of = |id: &str, kind, port, started: u64, lasted| Event {
            started: envoys + secs(started),
            lasted,
            ..event(kind, id, port, secs(0))
        };
        let told = [
            // A start that comes two seconds late, then one that comes at once.
            at(102, of("late", Kind::Start, 1, 100, None)),
            at(103, of("soon", Kind::Start, 2, 103, None)),
            at(110, of("late", Kind::Periodic, 1, 100, None)),
            // One from before the agent was there.
            at(111, of("old", Kind::Periodic, 3, 1, None)),
        ];
        for (now, clock, event) in &told {
            table.observe(&one, *now, *clock, event);
        }
        let ages: BTreeMap<_, _> =
            table.sessions(&one, now + secs(120)).into_iter().map(|s| (s.id.to_string(), s.age)).collect();
        assert_eq!((ages["late"], ages["soon"], ages["old"]), (secs(20), secs(17), secs(119)), "{skew}");
    }
}

#[test]
fn what_cannot_be_dated_is_not_listed_and_one_clock_dates_for_good() {
    let (one, now) = (node("one"), Instant::now());
    let old = |started: u64| Event {
        started: secs(started),
        lasted: None,
        ..event(Kind::Periodic, "old", 1, secs(0))
    };
    let mut table = Sessions::new(Limits { same_clock: false, ..Limits::default() });
    table.opened(&one, now);
    table.observe(&one, now, secs(1_000), &old(900));
    assert!(table.sessions(&one, now).is_empty(), "the difference of the clocks is unknown");
    let mut table = Sessions::new(Limits::default());
    table.opened(&one, now);
    table.observe(&one, now, secs(1_000), &old(900));
    // The clock is set forward by an hour.
    table.observe(&one, now + secs(10), secs(4_610), &old(900));
    assert_eq!(table.sessions(&one, now + secs(10))[0].age, secs(110));
}

#[test]
fn a_flood_from_one_envoy_leaves_room_for_the_others() {
    let limits = Limits { sessions: 100, origins: 2, ..Limits::default() };
    let (mut table, now) = Scene::new(limits);
    let (good, bad) = (node("good"), node("bad"));
    assert!(table.opened(&good, now) && table.opened(&bad, now));
    assert!(!table.opened(&node("third"), now), "no room for another");
    for number in 0..1_000 {
        table.observe(&bad, now, &event(Kind::Connected, &format!("bad{number}"), number, secs(0)));
    }
    for number in 0..40 {
        table.observe(&good, now, &event(Kind::Connected, &format!("good{number}"), number, secs(0)));
    }
    assert_eq!(table.len(), 100);
    assert_eq!(table.sessions(&good, now).len(), 40);
    assert_eq!(table.sessions(&bad, now).len(), 60);
    assert_eq!(table.dropped(), 940);
    // What was dropped is logged again within an interval, if there is room by then.
    assert!(table.complete_since(&bad) > Some(now));
    // An Envoy that went away makes room for one that is there.
    table.closed(&bad, 0, now);
    assert!(table.opened(&node("third"), now));
    assert_eq!(table.len(), 40);
}

#[test]
fn one_flood_under_many_names_leaves_room_for_the_others() {
    let limits = Limits { sessions: 100, ..Limits::default() };
    let (mut table, now) = Scene::new(limits);
    let good = node("good");
    table.opened(&good, now);
    for number in 0..40 {
        table.observe(&good, now, &event(Kind::Connected, &format!("good{number}"), number, secs(0)));
    }
    // Two sessions of each of five hundred names, of one process.
    for number in 0..1_000 {
        let name = of_peer(&format!("bad{}", number / 2), "bad");
        table.opened(&name, now);
        table.observe(&name, now, &event(Kind::Connected, &format!("bad{number}"), number, secs(0)));
    }
    for number in 40..45 {
        table.observe(&good, now, &event(Kind::Connected, &format!("good{number}"), number, secs(0)));
    }
    assert_eq!((table.len(), table.sessions(&good, now).len()), (100, 45));
    // One that claims the other's name speaks for itself alone.
    let claims = of_peer("good", "bad");
    table.opened(&claims, now);
    table.closed(&claims, 0, now + secs(5));
    assert_eq!(table.complete_since(&good), Some(now + ROUND));
}

#[test]
fn sessions_logged_since_the_last_break_are_certain() {
    let ((mut table, now), one) = (Scene::new(Limits::default()), node("one"));
    table.opened(&one, now);
    table.observe(&one, now, &event(Kind::Connected, "a", 1, secs(0)));
    table.observe(&one, now, &event(Kind::Connected, "b", 2, secs(0)));
    assert_eq!(table.certain(&one, now).len(), 2);
    let broke = now + secs(5);
    table.closed(&one, 1, broke);
    assert!(table.certain(&one, broke).is_empty(), "its end may have been missed");
    table.observe(&one, broke + secs(5), &event(Kind::Periodic, "a", 1, secs(10)));
    assert_eq!(ids(&table.certain(&one, broke + secs(5))), ["a".to_owned()].into());
    table.closed(&one, 0, broke + secs(6));
    assert!(table.certain(&one, broke + secs(6)).is_empty(), "it is not there");
}

#[test]
fn a_hundred_thousand_sessions_are_kept() {
    let ((mut table, now), one) = (Scene::new(Limits::default()), node("one"));
    table.opened(&one, now);
    for number in 0..100_000_u32 {
        let mut event =
            event(Kind::Periodic, &number.to_string(), u16::try_from(number % 50_000).unwrap(), secs(9));
        let last = u8::try_from(number / 50_000).unwrap();
        event.peer = Some(([10, 0, 1, last], 5432).into());
        assert_eq!(table.observe(&one, now, &event), Taken::New);
    }
    assert_eq!(table.sweep(&one, now + ROUND).unwrap().len(), 100_000);
}

/// A session's life: when it begins, in tenths of seconds, and how long it lasts.
type Life = (u64, u64);

/// An Envoy's log entries of these sessions, each with its time.
fn told(lives: &[Life]) -> Vec<(u64, Event)> {
    let mut all = Vec::new();
    for (number, (begin, length)) in lives.iter().enumerate() {
        let port = 1_000 + u16::try_from(number).unwrap();
        let id = format!("s{number}");
        let at = |kind, since: u64| {
            let lasted = (kind == Kind::End).then(|| Duration::from_millis(since * 100));
            let started = EPOCH + Duration::from_millis(begin * 100);
            (begin + since, Event { started, lasted, ..event(kind, &id, port, Duration::ZERO) })
        };
        all.push(at(Kind::Start, 0));
        all.push(at(Kind::Connected, 0));
        all.extend(
            (1..)
                .map(|round| round * 100)
                .take_while(|since| since < length)
                .map(|since| at(Kind::Periodic, since)),
        );
        all.push(at(Kind::End, *length));
    }
    all.sort_by_key(|(at, _)| *at);
    all
}

proptest! {
    /// After any history, late, out of order and twice, what is complete is right.
    #[test]
    fn a_complete_sweep_is_the_truth(
        lives in proptest::collection::vec((0..600_u64, 1..900_u64), 0..30),
        late in proptest::collection::vec(0..3_u64, 64),
        twice in proptest::collection::vec(any::<bool>(), 64),
        asked in 0..1_400_u64,
        began in 0..600_u64,
    ) {
        let start = Instant::now();
        let tenths = |tenths: u64| start + Duration::from_millis(tenths * 100);
        let one = node("one");
        // Entries come up to 0.2 s late, each by itself, so that some overtake others.
        let mut arrivals = Vec::new();
        for (number, (at, event)) in told(&lives).into_iter().enumerate() {
            let at = at + late[number % late.len()];
            if twice[number % twice.len()] {
                arrivals.push((at + 1, event.clone()));
            }
            arrivals.push((at, event));
        }
        arrivals.sort_by_key(|(at, _)| *at);
        let mut table = Sessions::new(Limits::default());
        let clock = |tenths: u64| EPOCH + Duration::from_millis(tenths * 100);
        // The agent was not there before `began`.
        table.opened(&one, tenths(began));
        for (at, event) in arrivals.iter().filter(|(at, _)| (began..=asked).contains(at)) {
            table.observe(&one, tenths(*at), clock(*at), event);
        }
        let swept = table.sweep(&one, tenths(asked));
        prop_assert_eq!(swept.is_some(), asked * 100 >= began * 100 + 12_500);
        if let Some(swept) = swept {
            let swept: BTreeMap<_, _> = swept.into_iter().map(|s| (s.id.to_string(), s.age)).collect();
            for (number, (begin, length)) in lives.iter().enumerate() {
                let age = swept.get(&format!("s{number}"));
                if begin + 3 <= asked && asked < begin + length {
                    let real = Duration::from_millis((asked - begin) * 100);
                    let age = age.copied();
                    prop_assert!(age.is_some_and(|age| age <= real && real <= age + Duration::from_millis(300)), "{age:?} {real:?}");
                }
                if asked > begin + length + 3 && begin + length >= began {
                    prop_assert_eq!(age, None, "s{} is over", number);
                }
            }
        }
        prop_assert_eq!(table.len(), table.sessions(&one, tenths(asked)).len());
    }

    /// Whenever streams break, and whatever is lost with them: what is certain lives.
    #[test]
    fn what_is_certain_is_the_truth(
        lives in proptest::collection::vec((0..600_u64, 1..900_u64), 0..30),
        breaks in proptest::collection::vec((0..1_200_u64, 1..100_u64), 0..6),
        asked in 0..1_400_u64,
    ) {
        let start = Instant::now();
        let tenths = |tenths: u64| start + Duration::from_millis(tenths * 100);
        let (one, mut table) = (node("one"), Sessions::new(Limits::default()));
        let away = |at: u64| breaks.iter().any(|(begin, length)| (*begin..begin + length).contains(&at));
        let told = told(&lives);
        let mut open = false;
        for at in 0..=asked {
            if open == away(at) {
                if open { table.closed(&one, 0, tenths(at)) } else { table.opened(&one, tenths(at)); }
                open = !open;
            }
            for (_, event) in told.iter().filter(|(when, _)| *when == at && open) {
                table.observe(&one, tenths(at), EPOCH + Duration::from_millis(at * 100), event);
            }
        }
        for session in table.certain(&one, tenths(asked)) {
            let (begin, length) = lives[session.id[1..].parse::<usize>().unwrap()];
            prop_assert!((begin..=begin + length).contains(&asked), "{} is over", session.id);
        }
    }

    /// Any events at all: the count is right, the bound is kept, nothing panics.
    #[test]
    fn it_never_miscounts(steps in proptest::collection::vec((0..3_u8, 0..4_u8, 0..30_u16, 0..12_u16, 0..40_u64), 0..300)) {
        let limits = Limits { sessions: 10, origins: 2, ..Limits::default() };
        let (mut table, mut now) = Scene::new(limits);
        for (who, what, id, port, wait) in steps {
            now += Duration::from_millis(wait * 250);
            let one = node(["one", "two", "three"][usize::from(who)]);
            match what {
                0 => { table.opened(&one, now); }
                1 => table.closed(&one, usize::from(port % 2), now),
                _ => {
                    let kind = if id % 5 == 0 { Kind::End } else { Kind::Periodic };
                    let event = event(kind, &format!("{}{id}", one.node), port, Duration::from_secs(u64::from(id)));
                    table.observe(&one, now, &event);
                }
            }
            let all: usize = ["one", "two", "three"].iter().map(|one| table.sessions(&node(one), now).len()).sum();
            prop_assert_eq!(all, table.len());
            prop_assert!(table.len() <= 10);
            prop_assert!(table.origins().count() <= 2);
        }
        table.expire(now + Duration::from_secs(3_600));
        prop_assert!(table.is_empty());
    }
}
