//! The rules for the answers of AWS: each finds its bad example and not its good one.

#![allow(clippy::unwrap_used, reason = "a test")]

use doctor::{aws, setup::Setup, source::Source};

#[test]
fn every_rule_finds_its_bad_example_and_not_its_good_one() {
    let setup = Setup { today: Some(20_000), ..Setup::default() };
    let mut wrong = Vec::new();
    for rule in aws::rules() {
        for (text, expected) in [(rule.about.bad, true), (rule.about.good, false)] {
            let findings = aws::check(&[Source { name: "answer.json".into(), text: text.into() }], &setup);
            if findings.iter().any(|finding| finding.rule == rule.about.id) != expected {
                wrong.push((rule.about.id, text, findings));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
