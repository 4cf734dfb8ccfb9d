//! The first law as a seeded simulation: never worse than having no agent.
//!
//! A [script](script::Script) of faults is drawn from a seed and played in three [arms](arm::Kind): with the real
//! decisions of the agent acting on a model of HAProxy or Envoy, with the proxy left as the agent left it when
//! clients began to come, and with no agent on RDS's names. World, clients and choices by chance are the same in
//! all three. Regret is what clients suffer in the first arm, less what they suffer in one of the others.
//!
//! It has to be 0 at most in each column of each script. The cases where the agent cannot know better are in
//! `excuse`, each with reason and bound.
//!
//! `REGRET_SEED=n` plays one seed alone, `REGRET_SEEDS=n` so many. `integration-tests/src/regret` plays scripts on
//! real servers.
//!
//! Not here: addresses, retirement, limits of logins, and HAProxy's old workers after a reload.

#![allow(clippy::expect_used, clippy::indexing_slicing, reason = "a test may panic")]

mod agent;
mod arm;
mod envoy;
mod excuse;
mod haproxy;
mod outcome;
mod proxy;
#[allow(dead_code, reason = "the other simulation uses the rest")]
#[path = "../simulation/random.rs"]
mod random;
mod script;
mod world;

use agent_core::health::Role;

use crate::{
    arm::Kind,
    excuse::Excuse,
    outcome::{Columns, Ended},
    script::{Fault, Script},
};

#[expect(clippy::disallowed_methods, reason = "the seed of a test comes from outside")]
fn asked(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().expect("a number"))
}

/// The regret of a script beside both other arms, summed over the readers that RDS's name may lead to at first.
struct Regret {
    mute: Columns,
    plain: Columns,
    /// The same with all attempts.
    whole: Columns,
    /// Attempts that are not compared, of how many.
    excused: [usize; 2],
}

fn measure(script: &Script) -> Regret {
    let (beside_mute, beside_plain) = (excuse::beside_mute(script), excuse::beside_plain(script));
    let fits =
        |excuses: &[Excuse], ended: &Ended| !excuses.iter().any(|excuse| excuse.covers(ended.role, ended.at));
    let mut regret = Regret {
        mute: Columns::default(),
        plain: Columns::default(),
        whole: Columns::default(),
        excused: [0; 2],
    };
    let add = |sum: &mut Columns, columns: Columns| {
        sum.iter_mut().zip(columns).for_each(|(sum, column)| *sum += column);
    };
    for reader in 1..script.servers {
        let [acting, mute, plain] =
            [Kind::Acting, Kind::Mute, Kind::Plain].map(|kind| arm::play(script, kind, reader, false).0);
        add(&mut regret.mute, outcome::regret(&acting, &mute, |ended| fits(&beside_mute, ended)));
        add(
            &mut regret.plain,
            outcome::regret(&acting, &plain, |ended| {
                ended.role == Role::Writer && fits(&beside_plain, ended)
            }),
        );
        add(&mut regret.whole, outcome::regret(&acting, &mute, |_| true));
        regret.excused[0] += acting.iter().filter(|ended| !fits(&beside_mute, ended)).count();
        regret.excused[1] += acting.len();
    }
    regret
}

/// Whether acting is worse than it may be in some column, beside one of the other arms.
fn is_worse(script: &Script, regret: &Regret) -> bool {
    let arms = [regret.mute, regret.plain].into_iter().zip(excuse::allowances(script));
    arms.into_iter()
        .any(|(columns, allowed)| columns.iter().zip(allowed).any(|(column, most)| *column > most))
}

/// The script with every fault taken out that it is as bad without. Roles follow from promotions, which stay.
fn smallest(mut script: Script) -> Script {
    let mut index = 0;
    while index < script.faults.len() {
        if matches!(script.faults[index].1, Fault::Failover { .. } | Fault::PromotedAlone { .. }) {
            index += 1;
            continue;
        }
        let mut smaller = script.clone();
        smaller.faults.remove(index);
        smaller.measure();
        if is_worse(&smaller, &measure(&smaller)) {
            script = smaller;
        } else {
            index += 1;
        }
    }
    script
}

/// All that there is to see of a script in which acting is worse.
fn report(script: &Script) -> String {
    let regret = measure(script);
    let mut lines = vec![format!(
        "{script}regret {:?} to mute, {:?} to plain, allowed {:?}",
        regret.mute,
        regret.plain,
        excuse::allowances(script)
    )];
    for reader in 1..script.servers {
        let (acting, journal) = arm::play(script, Kind::Acting, reader, true);
        let [mute, plain] = [Kind::Mute, Kind::Plain].map(|kind| arm::play(script, kind, reader, false).0);
        lines.push(format!("\nRDS's reader name leads to {reader}"));
        lines.extend(journal);
        for ((acting, mute), plain) in acting.iter().zip(mute).zip(plain) {
            let [mute, plain] = [mute, plain].map(|ended| ended.outcome);
            if acting.outcome > mute.min(plain) {
                lines.push(format!("worse: {acting:?}, mute {mute:?}, plain {plain:?}"));
            }
        }
    }
    lines.join("\n")
}

#[test]
fn acting_is_never_worse_than_no_agent() {
    let seeds = match asked("REGRET_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..asked("REGRET_SEEDS").unwrap_or(100),
    };
    let (mut whole, mut excused, mut attempts) = (Columns::default(), 0, 0);
    let mut worse = Vec::new();
    for seed in seeds.clone() {
        let script = Script::of(seed);
        let regret = measure(&script);
        if is_worse(&script, &regret) {
            worse.push(seed);
        }
        whole.iter_mut().zip(regret.whole).for_each(|(sum, column)| *sum += column);
        excused += regret.excused[0];
        attempts += regret.excused[1];
    }
    if let Some(seed) = worse.first() {
        let script = Script::of(*seed);
        let smallest = report(&smallest(script.clone()));
        panic!(
            "worse: seeds {worse:?}; REGRET_SEED={seed} repeats the first:\n{script}\nWith fewer faults:\n{smallest}"
        );
    }
    println!(
        "regret to mute with all attempts: {whole:?}; {excused} of {attempts} attempts are not compared"
    );
    // It proves something only if the agent gains a lot, and enough attempts are compared.
    if seeds.end - seeds.start >= 100 {
        assert!(excused * 10 < attempts * 6, "{excused} of {attempts} attempts are excused");
        let [slow, failed, wrong_role, ..] =
            whole.map(|column| column * 100 / i64::try_from(attempts).unwrap_or(1));
        assert!(slow < -4 && failed < -4 && wrong_role < -2, "{whole:?} of {attempts}");
    }
}

#[test]
fn the_same_seed_plays_the_same() {
    for seed in 0..4 {
        let once = || arm::play(&Script::of(seed), Kind::Acting, 1, true);
        assert_eq!(once(), once());
    }
}
