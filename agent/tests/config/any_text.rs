//! Arbitrary text does not make the parser panic.

use std::{fmt::Write, time::Duration};

use proptest::prelude::*;
use rds_lb_agent::config::parse;

use super::{EXAMPLE, FILE};

/// The example with some of its characters and lines changed.
fn mutated() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        "[\\x00-\\x7f]{0,4}",
        Just("\u{feff}é\u{2028}".to_owned()),
        prop::sample::select(vec![
            "&a ",
            "*a",
            "<<: *a",
            "- ",
            "? ",
            ": ",
            "{",
            "}",
            "[",
            "]",
            "|",
            ">",
            "!!binary ",
            "!x ",
            "~",
            "null",
            "---\n",
            "...\n",
            "'",
            "\"",
            "#",
            "\t",
            "%YAML 1.1\n",
            ".nan",
            "0x",
            "1e999",
            "\u{85}",
        ])
        .prop_map(str::to_owned),
    ];
    prop::collection::vec((any::<prop::sample::Index>(), 0..12_usize, piece), 1..6).prop_map(|edits| {
        let mut text: Vec<char> = EXAMPLE.chars().collect();
        for (at, cut, piece) in edits {
            let at = at.index(text.len());
            let end = (at + cut).min(text.len());
            text.splice(at..end, piece.chars());
        }
        text.into_iter().collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_change_of_a_good_file_breaks_the_parser(text in mutated()) {
        if let Err(problems) = parse(FILE, &text) {
            let shown = problems.to_string();
            prop_assert!(!problems.problems.is_empty());
            prop_assert!(shown.starts_with("error: rds-lb-agent.yaml:"), "{}", shown);
        }
    }

    #[test]
    fn no_text_breaks_the_parser(text in any::<String>()) {
        let _ = parse(FILE, &text);
    }
}

#[test]
fn deep_nesting_and_alias_bombs_are_refused_quickly() {
    let deep = "[".repeat(100_000);
    let mut aliases = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x]\n");
    for level in 1..12 {
        let before = format!("*a{}", level - 1);
        let nine = vec![before; 9].join(", ");
        writeln!(aliases, "a{level}: &a{level} [{nine}]").unwrap();
    }
    for text in [deep, "{a: ".repeat(50_000), "- ".repeat(50_000), aliases] {
        let begun = std::time::Instant::now();
        assert!(parse(FILE, &text).is_err());
        assert!(begun.elapsed() < Duration::from_secs(10));
    }
}
