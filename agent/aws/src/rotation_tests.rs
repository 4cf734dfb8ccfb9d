//! The decisions over whole days, with a made-up clock.

use std::time::UNIX_EPOCH;

use proptest::prelude::*;

use super::*;

fn at(seconds: f64) -> SystemTime {
    let zero = UNIX_EPOCH + Duration::from_secs(1_000_000_000);
    let by = Duration::from_secs_f64(seconds.abs());
    if seconds < 0.0 { zero - by } else { zero + by }
}

fn life(known_since: f64, signed_at: f64, expires_at: f64) -> Life {
    Life { known_since: at(known_since), signed_at: at(signed_at), expires_at: at(expires_at) }
}

/// Signs a token named by its number, dated now, that lives `seconds`.
fn signed(rotation: &mut Rotation<u32>, now: f64, seconds: f64, name: u32) -> Signed {
    rotation.signed(at(now), life(now, now, now + seconds), name, 0.5)
}

#[test]
fn a_full_life_is_refreshed_at_600_seconds_and_served_until_870() {
    let life = life(0.0, 0.0, 900.0);
    assert_eq!(life.refresh_at(), at(600.0));
    assert_eq!(life.last_use(), at(870.0));
    assert!(life.usable(at(869.9)) && !life.usable(at(870.0)));
}

#[test]
fn a_minutes_life_is_refreshed_at_40_seconds_and_served_until_50() {
    let life = life(0.0, 0.0, 60.0);
    assert_eq!(life.refresh_at(), at(40.0));
    assert_eq!(life.last_use(), at(50.0));
}

#[test]
fn signing_again_with_expiring_credentials_does_not_shrink_the_margin() {
    assert_eq!(life(0.0, 45.0, 60.0).last_use(), at(50.0));
    assert_eq!(life(-3600.0, 0.0, 60.0).last_use(), at(30.0), "an hour's credentials in their last minute");
}

#[test]
fn the_first_token_is_served_at_once_and_the_next_one_waits_for_its_proof() {
    let mut rotation = Rotation::default();
    assert_eq!(rotation.plan(at(0.0)), Action::Sign(Need::default()));
    assert_eq!(signed(&mut rotation, 0.0, 900.0, 1), Signed::Served);
    assert_eq!(rotation.plan(at(1.0)), Action::Wait(at(600.0)));
    assert_eq!(signed(&mut rotation, 600.0, 900.0, 2), Signed::Candidate);
    assert_eq!(rotation.current(at(700.0)), Some(&1));
    assert_eq!(rotation.candidate(at(700.0)), Some(&2));
    assert!(rotation.accepted(at(700.0), |name| *name == 2));
    assert_eq!(rotation.current(at(700.0)), Some(&2));
    assert_eq!(rotation.candidate(at(700.0)), None);
    assert_eq!(rotation.plan(at(700.0)), Action::Wait(at(1200.0)));
    assert!(!rotation.accepted(at(700.0), |name| *name == 1), "the old one is forgotten");
}

#[test]
fn an_unproved_candidate_takes_over_when_the_served_token_may_no_longer_be_used() {
    let mut rotation = Rotation::default();
    signed(&mut rotation, 0.0, 900.0, 1);
    signed(&mut rotation, 600.0, 900.0, 2);
    assert_eq!(rotation.current(at(869.0)), Some(&1));
    assert_eq!(rotation.current(at(870.0)), Some(&2));
    assert_eq!(rotation.candidate(at(870.0)), None);
    assert_eq!(rotation.current_life(at(870.0)).map(|(_, proved)| proved), Some(false));
}

#[test]
fn a_refused_candidate_is_dropped_and_its_successor_signed_with_newer_credentials() {
    let mut rotation = Rotation::default();
    signed(&mut rotation, 0.0, 900.0, 1);
    signed(&mut rotation, 600.0, 900.0, 2);
    assert!(rotation.refused(at(610.0), |name| *name == 2, 0.5));
    assert_eq!(rotation.candidate(at(610.0)), None);
    assert_eq!(rotation.current(at(610.0)), Some(&1));
    assert_eq!(rotation.plan(at(610.0)), Action::Wait(at(611.0)), "not in a tight loop");
    assert_eq!(
        rotation.plan(at(611.0)),
        Action::Sign(Need { newer_than: Some(at(600.0)), beyond: Some(at(900.0)) })
    );
}

#[test]
fn a_refused_token_stays_served_and_requests_one_successor_only() {
    let mut rotation = Rotation::default();
    signed(&mut rotation, 0.0, 900.0, 1);
    for second in 0..5 {
        assert!(rotation.refused(at(100.0 + f64::from(second)), |name| *name == 1, 0.5));
    }
    assert_eq!(rotation.current(at(105.0)), Some(&1));
    assert_eq!(
        rotation.plan(at(105.0)),
        Action::Sign(Need { newer_than: Some(at(0.0)), beyond: Some(at(900.0)) })
    );
    // The same dates as before, and taken all the same: the keys may be others.
    assert_eq!(rotation.signed(at(105.0), life(105.0, 105.0, 900.0), 2, 0.5), Signed::Candidate);
    assert!(rotation.refused(at(106.0), |name| *name == 1, 0.5));
    assert_eq!(
        rotation.candidate(at(106.0)),
        Some(&2),
        "the old one's refusal says nothing about the new one"
    );
}

#[test]
fn retries_slow_down_but_come_four_times_before_the_end() {
    let mut rotation = Rotation::default();
    signed(&mut rotation, 0.0, 900.0, 1);
    let (mut now, mut attempts) = (600.0, Vec::new());
    while rotation.current(at(now)).is_some() {
        assert_eq!(rotation.plan(at(now)), Action::Sign(Need { newer_than: None, beyond: Some(at(900.0)) }));
        attempts.push(now);
        rotation.failed(at(now), 0.5);
        let Action::Wait(next) = rotation.plan(at(now)) else { panic!("a retry at once") };
        now += next.duration_since(at(now)).expect("later").as_secs_f64();
    }
    assert_eq!(attempts[..6], [600.0, 601.0, 603.0, 607.0, 615.0, 631.0]);
    let last = attempts.last().expect("attempts");
    assert!((860.0..870.0).contains(last), "tried until the end: {attempts:?}");
    assert!(attempts.len() < 40, "without hurry: {attempts:?}");
}

#[test]
fn a_clock_set_back_replaces_the_token_at_once() {
    let mut rotation = Rotation::default();
    signed(&mut rotation, 0.0, 900.0, 1);
    rotation.failed(at(600.0), 0.5);
    let plan = rotation.plan(at(-3600.0));
    assert!(matches!(plan, Action::Sign(_)), "the retry's date counts for nothing: {plan:?}");
    assert_eq!(signed(&mut rotation, -3600.0, 900.0, 2), Signed::Served);
    assert_eq!(rotation.current(at(-3600.0)), Some(&2));
}

#[test]
fn credentials_close_to_their_expiry_are_not_reloaded_at_once() {
    let mut rotation = Rotation::default();
    let dying = life(-900.0, 0.0, 40.0);
    assert_eq!(rotation.signed(at(0.0), dying, 1, 0.5), Signed::Served);
    assert!(dying.refresh_at() <= at(0.0));
    assert_eq!(rotation.plan(at(0.0)), Action::Wait(at(1.0)));
    assert!(matches!(rotation.plan(at(1.0)), Action::Sign(_)));
}

/// The environment of one source: a provider that returns its newest credentials.
#[derive(Clone, Debug)]
struct World {
    /// The lifetime of its credentials.
    life: f64,
    /// How long before their expiry it has the next ones.
    overlap: f64,
    /// When it does not answer.
    outages: Vec<(f64, f64)>,
    /// How many seconds after signing a probe reports the token, if at all.
    probe: Option<f64>,
}

impl World {
    fn expiry(&self, now: f64) -> Option<(f64, f64)> {
        if self.outages.iter().any(|(from, length)| (*from..from + length).contains(&now)) {
            return None;
        }
        let period = self.life - self.overlap;
        let from = (now / period).floor() * period;
        Some((from, from + self.life))
    }
}

fn worlds() -> impl Strategy<Value = World> {
    let outages = prop::collection::vec((0.0..4000.0_f64, 1.0..1500.0_f64), 0..4);
    (12.0..7200.0_f64, 0.0..0.6_f64, outages, prop::option::of(0.1..40.0_f64))
        .prop_map(|(life, share, outages, probe)| World { life, overlap: life * share, outages, probe })
}

/// Lets a source run for `end` seconds and calls `see` at every step.
fn run(world: &World, end: f64, chance: f64, mut see: impl FnMut(f64, &Rotation<Life>)) -> u32 {
    let mut rotation = Rotation::default();
    let (mut now, mut attempts) = (0.0, 0);
    let mut known: Option<(f64, f64)> = None;
    while now < end {
        if let Action::Sign(_) = rotation.plan(at(now)) {
            attempts += 1;
            match world.expiry(now) {
                Some((from, expiry)) => {
                    let since =
                        known.filter(|(seen, _)| (seen - from).abs() < 0.01).map_or(now, |(_, since)| since);
                    known = Some((from, since));
                    let life = life(since, now, expiry.min(now + 900.0));
                    rotation.signed(at(now), life, life, chance);
                }
                None => rotation.failed(at(now), chance),
            }
            assert!(matches!(rotation.plan(at(now)), Action::Wait(_)), "two attempts at {now}");
        }
        if let (Some(delay), Some(candidate)) = (world.probe, rotation.candidate(at(now)).copied())
            && at(now) >= candidate.signed_at + Duration::from_secs_f64(delay)
        {
            assert!(rotation.accepted(at(now), |held| *held == candidate));
        }
        see(now, &rotation);
        now += 0.25;
    }
    attempts
}

proptest! {
    // Each case is 5000 made-up seconds.
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_token_is_used_within_its_margin(world in worlds(), chance in 0.0..1.0_f64) {
        run(&world, 5000.0, chance, |now, rotation| {
            for life in rotation.current(at(now)).into_iter().chain(rotation.candidate(at(now))) {
                let left = life.expires_at.duration_since(at(now)).expect("not expired");
                assert!(left > life.margin() && left > MARGIN_MIN, "{left:?} left at {now}");
            }
        });
    }

    #[test]
    fn there_is_always_a_token_when_credentials_overlap_and_nothing_fails(
        life in 12.0..7200.0_f64,
        chance in 0.0..1.0_f64,
        probe in prop::option::of(0.1..40.0_f64),
    ) {
        // The next credentials are there a third of a life before the end, and known
        // within the backoff.
        let world = World { life, overlap: life * 0.4, outages: vec![], probe };
        run(&world, 5000.0, chance, |now, rotation| {
            assert!(rotation.current(at(now)).is_some(), "none at {now}");
        });
    }

    #[test]
    fn an_outage_costs_tokens_only_after_their_end_and_ends_within_the_longest_backoff(
        from in 100.0..2000.0_f64,
        length in 1.0..1500.0_f64,
        chance in 0.0..1.0_f64,
    ) {
        let world = World { life: 36_000.0, overlap: 0.0, outages: vec![(from, length)], probe: None };
        let longest = RETRY_MAX_BARE.as_secs_f64() * 1.25 + 0.5;
        run(&world, 5000.0, chance, |now, rotation| {
            // A token signed at the latest 600 s after the one before lives on for 270 s.
            let out = now > from + 269.0 && now < from + length + longest;
            assert!(out || rotation.current(at(now)).is_some(), "none at {now}");
        });
    }

    #[test]
    fn attempts_are_few(world in worlds(), chance in 0.0..1.0_f64) {
        let mut bare = 0;
        let attempts = run(&world, 5000.0, chance, |now, rotation| {
            bare += u32::from(rotation.current(at(now)).is_none());
        });
        // Four steps are a second. Without a token one attempt in four seconds or so,
        // with one a handful for each credential.
        let most = 60.0 + f64::from(bare) / 4.0 / 3.75 + 12.0 * 5000.0 / (world.life - world.overlap).min(600.0) * 2.0;
        prop_assert!(f64::from(attempts) < most, "{attempts} attempts, {most}");
    }

    #[test]
    fn a_refused_candidate_is_never_served(chance in 0.0..1.0_f64, refuse_at in 600.0..869.0_f64) {
        let mut rotation = Rotation::default();
        signed(&mut rotation, 0.0, 900.0, 1);
        signed(&mut rotation, 600.0, 900.0, 2);
        prop_assert!(rotation.refused(at(refuse_at), |name| *name == 2, chance));
        for now in 600..1600_u32 {
            let current = rotation.current(at(refuse_at + f64::from(now) - 600.0));
            prop_assert!(current.is_none_or(|name| *name == 1));
        }
    }
}
