//! The files of a HAProxy configuration → sections of lines of words, each with its position.

use std::sync::Arc;

use super::{
    condition::{Truth, holds},
    words::{Environment, words},
};
use crate::{position::Position, rule::Found, setup::Version, source::Source};

#[derive(Clone, Debug)]
pub struct Line {
    pub at: Position,
    /// Never empty.
    pub words: Vec<String>,
}

impl Line {
    pub fn word(&self, index: usize) -> &str {
        self.words.get(index).map_or("", String::as_str)
    }

    /// Whether the line begins with these words.
    pub fn begins(&self, words: &[&str]) -> bool {
        words.iter().enumerate().all(|(index, word)| self.word(index) == *word)
    }
}

#[derive(Clone, Debug)]
pub struct Section {
    pub kind: String,
    pub name: String,
    /// The `defaults` section that it inherits from, as an index into the sections.
    pub from: Option<usize>,
    pub at: Position,
    pub lines: Vec<Line>,
}

/// Sections in the order of the files, and what could not be read.
#[derive(Default)]
pub struct Parsed {
    pub sections: Vec<Section>,
    pub mistakes: Vec<Found>,
}

/// The words that begin a section.
const SECTIONS: [&str; 20] = [
    "acme",
    "backend",
    "cache",
    "crt-store",
    "defaults",
    "dynamic-update",
    "fcgi-app",
    "frontend",
    "global",
    "http-errors",
    "listen",
    "log-forward",
    "log-profile",
    "mailers",
    "peers",
    "program",
    "resolvers",
    "ring",
    "traces",
    "userlist",
];

/// A branch of `.if`.
struct Branch {
    /// Whether the lines around the `.if` count.
    around: bool,
    /// Whether an earlier branch is certainly the one.
    taken: bool,
    counts: bool,
    at: Position,
}

impl Branch {
    fn next(&mut self, truth: Truth) {
        self.counts = self.around && !self.taken && truth != Some(false);
        self.taken |= truth == Some(true);
    }
}

/// Lines of branches whose condition is unknown count.
pub fn parse(sources: &[Source], environment: &Environment, version: Option<Version>) -> Parsed {
    let mut parsed = Parsed::default();
    let mut environment = environment.clone();
    for source in sources {
        let file: Arc<str> = source.name.as_str().into();
        let mut branches: Vec<Branch> = Vec::new();
        let mut outside = false;
        for (number, text) in (1..).zip(source.text.lines()) {
            let at = Position { file: file.clone(), line: number };
            let words = match words(text, &environment) {
                Ok(words) => words,
                Err(mistake) => {
                    parsed.mistakes.push((at, mistake.into()));
                    continue;
                }
            };
            let line = Line { at, words };
            let counts = branches.last().is_none_or(|branch| branch.counts);
            match line.word(0) {
                "" if line.words.is_empty() => {}
                directive @ (".if" | ".elif" | ".else") => {
                    let condition = line.words.get(1..).unwrap_or_default().join(" ");
                    let truth = if directive == ".else" {
                        Some(true)
                    } else {
                        holds(&condition, &environment, version)
                    };
                    if directive == ".if" {
                        let at = line.at.clone();
                        branches.push(Branch { around: counts, taken: false, counts, at });
                    }
                    if let Some(branch) = branches.last_mut() {
                        branch.next(truth);
                    } else {
                        let what = format!("`{directive}` without `.if`");
                        parsed.mistakes.push((line.at.clone(), what));
                    }
                }
                ".endif" => {
                    if branches.pop().is_none() {
                        parsed.mistakes.push((line.at, "`.endif` without `.if`".into()));
                    }
                }
                ".notice" | ".warning" | ".alert" | ".diag" => {}
                _ if !counts => {}
                "setenv" | "presetenv" if in_global(&parsed) => {
                    let (name, value) = (line.word(1).to_owned(), line.word(2).to_owned());
                    if line.word(0) == "setenv" || !environment.contains_key(&name) {
                        environment.insert(name, value);
                    }
                }
                "unsetenv" if in_global(&parsed) => {
                    line.words.iter().skip(1).for_each(|name| drop(environment.remove(name)));
                }
                word if SECTIONS.contains(&word) => parsed.begin(line),
                _ => {
                    if let Some(section) = parsed.sections.last_mut() {
                        section.lines.push(line);
                    } else if !std::mem::replace(&mut outside, true) {
                        // Once: a file of something else has no section at all.
                        let what = format!("`{}` is before the first section", line.word(0));
                        parsed.mistakes.push((line.at, what));
                    }
                }
            }
        }
        let open = branches.into_iter().map(|branch| (branch.at, "`.if` without `.endif`".into()));
        parsed.mistakes.extend(open);
    }
    parsed
}

fn in_global(parsed: &Parsed) -> bool {
    parsed.sections.last().is_some_and(|section| section.kind == "global")
}

impl Parsed {
    fn begin(&mut self, line: Line) {
        let (kind, mut name, mut from) = (line.word(0), line.word(1), None);
        let inherits = matches!(kind, "defaults" | "frontend" | "backend" | "listen");
        if inherits {
            // `defaults from base` has no name of its own.
            let index = if name == "from" && kind == "defaults" { 1 } else { 2 };
            if index == 1 {
                name = "";
            }
            let defaults =
                || self.sections.iter().enumerate().rev().filter(|(_, section)| section.kind == "defaults");
            if line.word(index) == "from" {
                let wanted = line.word(index + 1);
                from = defaults().find(|(_, section)| section.name == wanted).map(|(index, _)| index);
                if from.is_none() {
                    let what = format!("no `defaults` section above is called `{wanted}`");
                    self.mistakes.push((line.at.clone(), what));
                }
            } else if kind != "defaults" {
                from = defaults().next().map(|(index, _)| index);
            }
        }
        let (kind, name) = (kind.to_owned(), name.to_owned());
        self.sections.push(Section { kind, name, from, at: line.at, lines: Vec::new() });
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parsed(texts: &[&str], version: Option<Version>) -> Parsed {
        let name = |index| format!("{index}.cfg");
        let sources = texts.iter().enumerate();
        let sources: Vec<Source> =
            sources.map(|(index, text)| Source { name: name(index), text: (*text).to_owned() }).collect();
        parse(&sources, &Environment::new(), version)
    }

    fn lines(parsed: &Parsed, section: usize) -> Vec<String> {
        parsed.sections[section].lines.iter().map(|line| line.words.join(" ")).collect()
    }

    #[test]
    fn sections_have_names_parents_and_positions() {
        let both = parsed(
            &[
                "global\n maxconn 5\ndefaults base\n mode tcp\n",
                "defaults other from base\nbackend a\nbackend b from base\n",
            ],
            None,
        );
        assert!(both.mistakes.is_empty());
        let shown: Vec<_> = both
            .sections
            .iter()
            .map(|section| {
                (section.kind.as_str(), section.name.as_str(), section.from, section.at.to_string())
            })
            .collect();
        assert_eq!(
            shown,
            [
                ("global", "", None, "0.cfg:1".to_owned()),
                ("defaults", "base", None, "0.cfg:3".to_owned()),
                ("defaults", "other", Some(1), "1.cfg:1".to_owned()),
                ("backend", "a", Some(2), "1.cfg:2".to_owned()),
                ("backend", "b", Some(1), "1.cfg:3".to_owned()),
            ]
        );
    }

    #[test]
    fn branches_count_unless_their_condition_is_false() {
        let text = "global\n.if version_atleast(3.1)\n new\n.elif feature(X)\n maybe\n.else\n old\n.endif\n always\n";
        assert_eq!(lines(&parsed(&[text], Some((3, 2))), 0), ["new", "always"]);
        assert_eq!(lines(&parsed(&[text], Some((2, 6))), 0), ["maybe", "old", "always"]);
        assert_eq!(lines(&parsed(&[text], None), 0), ["new", "maybe", "old", "always"]);
        let nested = "global\n.if 0\n.if 1\n a\n.else\n b\n.endif\n.else\n c\n.endif\n";
        assert_eq!(lines(&parsed(&[nested], None), 0), ["c"]);
    }

    #[test]
    fn variables_of_the_file_are_used_below() {
        let text = "global\n setenv SITE eu\n presetenv SITE us\nbackend \"$SITE\"\n";
        assert_eq!(parsed(&[text], None).sections[1].name, "eu");
    }

    #[test]
    fn mistakes_have_positions() {
        let text = "maxconn 1\nbackend a from nothing\n log \"x\n.endif\n.if 1\n";
        let mistakes: Vec<u64> = parsed(&[text], None).mistakes.iter().map(|(at, _)| at.line).collect();
        assert_eq!(mistakes, [1, 2, 3, 4, 5]);
    }

    proptest! {
        #[test]
        fn any_text_is_parsed(text in any::<String>()) {
            parsed(&[&text], None);
        }

        #[test]
        fn any_order_of_likely_lines_is_parsed(chosen in prop::collection::vec(0..LINES.len(), 0..40)) {
            let text: Vec<&str> = chosen.iter().map(|index| LINES[*index]).collect();
            let text = text.join("\n");
            let report = crate::haproxy::check(&[Source { name: "x".into(), text }], &crate::setup::Setup::default());
            prop_assert!(report.len() < 10_000);
        }
    }

    const LINES: [&str; 22] = [
        "global",
        "defaults",
        "defaults x from y",
        "backend b",
        "frontend f",
        "listen l from x",
        "resolvers r",
        "server",
        "server a",
        "server a :",
        "server a 10.0.0.1:5432 check agent-check agent-inter",
        "server b [::1]:3306 ssl source 1 usesrc",
        "default-server agent-check agent-send",
        "timeout client",
        "timeout server 1h",
        "option",
        "no option redispatch",
        "stats socket",
        "default_backend b",
        ".if",
        ".else",
        "bind :5432 ssl",
    ];
}
