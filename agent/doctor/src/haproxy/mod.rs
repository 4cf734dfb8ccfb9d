//! HAProxy's configuration: parser, meaning, rules.
//!
//! - [`words`]: one line → words.
//! - [`condition`]: the conditions of `.if`.
//! - [`parse`]: files → sections of lines.
//! - [`model`]: sections → proxies and servers with their effective settings.
//! - [`rules`]: what can be wrong with them.

pub mod condition;
mod model;
mod parse;
mod rules;
mod words;

pub use model::Config;
pub use rules::all as rules;

use crate::{finding::Finding, position::Position, setup::Setup, source::Source};

/// The findings of all rules on the files of one HAProxy, in the order in which HAProxy reads them.
pub fn check(sources: &[Source], setup: &Setup) -> Vec<Finding> {
    let start = Position { file: sources.first().map_or("", |source| &source.name).into(), line: 1 };
    let config = Config::new(parse::parse(sources, &setup.environment, setup.haproxy), setup, start);
    let found = |rule: &crate::rule::Rule<Config>| {
        let about = rule.about;
        (rule.check)(&config, setup).into_iter().map(move |found| Finding::new(&about, found))
    };
    rules().flat_map(found).collect()
}

/// How many connections to one server HAProxy admits at most: by `maxconn` of the servers where all have one, else by
/// that of the global section.
pub fn admitted(sources: &[Source], setup: &Setup) -> Option<u64> {
    let start = Position { file: "".into(), line: 0 };
    let config = Config::new(parse::parse(sources, &setup.environment, setup.haproxy), setup, start);
    let limits: Option<Vec<u64>> =
        config.real_servers().map(|(_, server)| server.value("maxconn")?.parse().ok()).collect();
    let global = || config.global(&["maxconn"])?.word(1).parse().ok();
    limits.and_then(|limits| limits.into_iter().max()).or_else(global)
}
