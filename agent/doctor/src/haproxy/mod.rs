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
