//! A seeded simulation: databases, HAProxy, persons, hundreds of clients and every
//! kind of trouble, around the real decisions of the agent. What must never happen
//! is checked against the truth, which the agent does not see.
//!
//! A failing seed is printed. `SIMULATION_SEED=n` runs that one alone,
//! `SIMULATION_SEEDS=n` runs so many.

#![allow(clippy::expect_used, clippy::indexing_slicing, reason = "a test may panic")]

mod agent;
#[path = "../support/haproxy.rs"]
mod haproxy;
mod random;
mod run;
mod trouble;
mod world;

use std::time::Duration;

use agent_core::plan::{Busy, Mode, Policy};

use crate::{random::Random, run::Run};

/// A number from the environment.
#[expect(clippy::disallowed_methods, reason = "the seed of a test comes from outside")]
fn asked(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().expect("a number"))
}

/// A policy with short lives, and the operator's choices by chance.
fn policy(random: &mut Random) -> Policy {
    Policy {
        mode: if random.chance(80) { Mode::Retire } else { Mode::Drain },
        max_age: Duration::from_secs(40),
        login_budget: 8 + u32::try_from(random.below(12)).expect("small"),
        busy: if random.chance(50) { Busy::Hold } else { Busy::Catch },
        drain_deadline: Duration::from_secs(15),
        exempt: agent_core::plan::Exempt { applications: vec!["report*".into()], ..Default::default() },
        ..Policy::default()
    }
}

fn simulate(seed: u64, policy: Policy, clients: usize, seconds: u64) -> run::Counts {
    let mut run = Run::new(seed, clients, policy);
    run.for_a_while(Duration::from_secs(seconds));
    let counts = run.end();
    assert!(
        run.broken().is_empty(),
        "seed {seed} (SIMULATION_SEED={seed} repeats it), {} broken rules, the first:\n{}",
        run.broken().len(),
        run.broken().iter().take(10).map(String::as_str).collect::<Vec<_>>().join("\n"),
    );
    counts
}

#[test]
fn nothing_that_must_never_happen_happens() {
    let seeds = match asked("SIMULATION_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..asked("SIMULATION_SEEDS").unwrap_or(8),
    };
    let mut sum = run::Counts::default();
    for seed in seeds.clone() {
        let counts = simulate(seed, policy(&mut Random::new(seed)), 120, 240);
        println!("seed {seed}: {counts:?}");
        sum.add(&counts);
    }
    // It proves something only if a lot has happened.
    if seeds.end - seeds.start >= 8 {
        assert!(sum.connects > 5_000 && sum.closes > 1_500 && sum.drains > 20, "{sum:?}");
        assert!(sum.refused_closes > 0 && sum.troubles > 50, "{sum:?}");
    }
}

#[test]
fn reads_are_served_while_operators_have_drained_both_readers() {
    let mut run = Run::new(7, 60, policy(&mut Random::new(7)));
    run.only_persons(&[4, 5], Duration::from_secs(40), Duration::from_secs(90));
    run.for_a_while(Duration::from_secs(120));
    assert!(run.broken().is_empty(), "{}", run.broken().join("\n"));
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let seed = asked("SIMULATION_SEED").unwrap_or(3);
    let once = || simulate(seed, policy(&mut Random::new(seed)), 40, 90);
    assert_eq!(once(), once());
}

#[test]
fn a_thousand_sessions_are_retired_in_time() {
    let policy = Policy { mode: Mode::Retire, login_budget: 60, ..policy(&mut Random::new(1)) };
    let counts = simulate(asked("SIMULATION_SEED").unwrap_or(1_000), policy, 1_000, 0);
    assert!(counts.closes > 500, "{counts:?}");
}
