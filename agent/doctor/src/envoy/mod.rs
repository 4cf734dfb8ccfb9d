//! Envoy's configuration: bootstrap, files of dynamic resources, and what its admin interface prints as
//! `/config_dump`.
//!
//! - [`tree`]: YAML and JSON → values with their lines.
//! - [`model`]: values → TCP proxies and clusters that lead to databases.
//! - [`rules`]: what can be wrong with them.

mod model;
mod rules;
mod tree;

use std::sync::Arc;

pub use model::Config;
pub use rules::all as rules;

use crate::{finding::Finding, position::Position, rule::Rule, setup::Setup, source::Source};

/// The findings of all rules on the files of one Envoy.
pub fn check(sources: &[Source], setup: &Setup) -> Vec<Finding> {
    let (mut roots, mut mistakes) = (Vec::new(), Vec::new());
    for source in sources {
        let file: Arc<str> = source.name.as_str().into();
        match tree::parse(&source.text) {
            Ok(node) => roots.push(model::Part { file, node }),
            Err((line, what)) => mistakes.push((Position { file, line }, what)),
        }
    }
    let config = Config::new(roots, mistakes, setup);
    let found = |rule: &Rule<Config>| {
        let about = rule.about;
        (rule.check)(&config, setup).into_iter().map(move |found| Finding::new(&about, found))
    };
    rules().flat_map(found).collect()
}
