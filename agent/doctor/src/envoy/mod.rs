//! Envoy's configuration: bootstrap, files of dynamic resources, and what its admin interface prints as
//! `/config_dump`.
//!
//! - [`model`]: values → TCP proxies and clusters that lead to databases.
//! - [`rules`]: what can be wrong with them.

mod model;
mod rules;

use std::sync::Arc;

pub use model::Config;
pub use rules::all as rules;

use crate::{finding::Finding, position::Position, rule::Rule, setup::Setup, source::Source, tree};

/// The keys of which each kind of file has at least one: a bootstrap, `/config_dump`, a file of resources.
const TOP_LEVEL: [&str; 7] =
    ["static_resources", "dynamic_resources", "node", "admin", "layered_runtime", "configs", "resources"];

/// The findings of all rules on the files of one Envoy.
pub fn check(sources: &[Source], setup: &Setup) -> Vec<Finding> {
    let (mut roots, mut mistakes) = (Vec::new(), Vec::new());
    for source in sources {
        let file: Arc<str> = source.name.as_str().into();
        match tree::parse(&source.text) {
            Ok(node) if TOP_LEVEL.iter().any(|key| node.get(key).is_some()) => {
                roots.push(model::Part { file, node });
            }
            Ok(_) => {
                let what =
                    format!("this is no configuration of Envoy: it has none of {}", TOP_LEVEL.join(", "));
                mistakes.push((Position { file, line: 1 }, what));
            }
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
