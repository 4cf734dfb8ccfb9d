//! Everything that goes wrong, and the persons.

use std::time::Duration;

use crate::{
    haproxy::Hand,
    random::Random,
    world::{Condition, Refuses},
};

/// One thing that happens to the world or to the agent.
#[derive(Clone, Debug)]
pub enum Trouble {
    /// The agent is stopped, and goes on.
    Freeze(bool),
    /// The agent is killed, or started anew from its state.
    Kill,
    Start,
    /// The proxy's runtime socket is dead.
    Socket(bool),
    /// AWS is away: no client gets credentials or can log in.
    Aws(bool),
    Refuses(usize, Refuses),
    RefusesAll(Refuses),
    Condition(usize, Condition),
    /// The writer crashes; another takes its place; it comes back as a reader.
    Crash,
    Promote(usize),
    /// The writer changes without a crash: its sessions stay.
    Switch(usize),
    /// Answers of databases get lost.
    Lossy(bool),
    /// An operator's command on a server.
    Person(usize, Hand),
    /// HAProxy is reloaded: it forgets all that was set.
    Reload,
}

/// What begins now, and what ends it after a while.
pub fn next(random: &mut Random) -> Vec<(Duration, Trouble)> {
    use Trouble as T;
    let now = Duration::ZERO;
    let index = usize::try_from(random.below(3)).expect("small");
    let other = (index + 1) % 3;
    match random.below(17) {
        0 | 1 => vec![(now, T::Freeze(true)), (random.seconds(2, 40), T::Freeze(false))],
        2 | 3 => vec![(now, T::Kill), (random.seconds(2, 15), T::Start)],
        4 | 5 => vec![(now, T::Socket(true)), (random.seconds(2, 20), T::Socket(false))],
        6 => vec![(now, T::Aws(true)), (random.seconds(10, 40), T::Aws(false))],
        7 => vec![
            (now, T::RefusesAll(Refuses::TheAgent)),
            (random.seconds(15, 45), T::RefusesAll(Refuses::Nobody)),
        ],
        8 => {
            let whom = if random.chance(50) { Refuses::TheAgent } else { Refuses::Everybody };
            vec![(now, T::Refuses(index, whom)), (random.seconds(10, 40), T::Refuses(index, Refuses::Nobody))]
        }
        9 => vec![(now, T::Crash), (random.seconds(2, 8), T::Promote(index))],
        10 => vec![(now, T::Switch(other))],
        11 => vec![
            (now, T::Condition(index, Condition::Silent)),
            (random.seconds(1, 25), T::Condition(index, Condition::Well)),
        ],
        12 => vec![(now, T::Lossy(true)), (random.seconds(3, 15), T::Lossy(false))],
        13 => vec![(now, T::Reload)],
        14 => {
            // Often all readers: those who read have to go somewhere.
            let pair = [3 + index, 3 + other];
            let over = random.seconds(35, 70);
            let set = pair.map(|server| (now, T::Person(server, Hand::Maint)));
            let unset = pair.map(|server| (over, T::Person(server, Hand::Ready)));
            set.into_iter().chain(unset).collect()
        }
        _ => {
            let server = usize::try_from(random.below(6)).expect("small");
            let hand = if random.chance(70) { Hand::Drain } else { Hand::Maint };
            vec![(now, T::Person(server, hand)), (random.seconds(3, 40), T::Person(server, Hand::Ready))]
        }
    }
}
