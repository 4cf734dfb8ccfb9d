//! All rules, for `--allow` and for the page that docs/DOCTOR.md is generated as.

use std::fmt::Write;

use crate::{aws, envoy, haproxy, live, rule::About};

/// A part of the catalogue: title, language of the examples, rules.
type Part = (&'static str, &'static str, Vec<About>);

fn parts() -> Vec<Part> {
    vec![
        ("HAProxy", "haproxy", haproxy::rules().map(|rule| rule.about).collect()),
        ("Envoy", "yaml", envoy::rules().map(|rule| rule.about).collect()),
        ("AWS", "json", aws::rules().map(|rule| rule.about).collect()),
        ("The live path", "", live::rules().map(|rule| rule.about).collect()),
    ]
}

/// The texts of every rule.
pub fn all() -> Vec<About> {
    parts().into_iter().flat_map(|(_, _, rules)| rules).collect()
}

/// The catalogue as Markdown, below a title.
pub fn page() -> String {
    let mut page = String::new();
    // Writing to a String cannot fail.
    for (title, language, rules) in parts() {
        let _ = write!(page, "\n## {title}\n");
        for About { id, severity, title, why, fix, bad, good } in rules {
            let _ = write!(
                page,
                "\n### {id}\n{}: {title}.\n\n{why}\n\n**Fix:** {fix}\n",
                capital(severity.word())
            );
            for (word, example) in [("Found", bad), ("Not found", good)] {
                if !example.is_empty() {
                    let _ = write!(page, "\n{word}:\n```{language}\n{}\n```\n", example.trim_end());
                }
            }
        }
    }
    page
}

fn capital(word: &str) -> String {
    let mut letters = word.chars();
    letters.next().map(|first| first.to_ascii_uppercase().to_string() + letters.as_str()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_rule_has_an_id_of_its_own_and_all_texts() {
        let all = all();
        let ids: BTreeSet<&str> = all.iter().map(|about| about.id).collect();
        assert_eq!(ids.len(), all.len());
        for about in all {
            let plain = |c: char| c.is_ascii_lowercase() || c == '-';
            assert!(about.id.chars().all(plain), "{}", about.id);
            assert!(!about.title.ends_with('.'), "{}", about.id);
            for text in [about.why, about.fix] {
                assert!(text.ends_with('.'), "{}: {text}", about.id);
            }
        }
    }
}
