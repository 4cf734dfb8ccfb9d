//! The rules, by subject.

mod checks;
mod process;
mod routing;
mod syntax;
mod timeouts;
mod tls;

use super::model::Config;
use crate::rule::Rule;

/// All rules, in the order of the catalogue.
pub fn all() -> impl Iterator<Item = &'static Rule<Config>> {
    [syntax::RULES, tls::RULES, timeouts::RULES, checks::RULES, routing::RULES, process::RULES]
        .into_iter()
        .flatten()
}
