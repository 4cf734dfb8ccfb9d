//! A rule: what it finds, why it matters, how to fix it, and an example of each. The page of the catalogue and
//! the tests of the rules are made from the same table.

use crate::{position::Position, setup::Setup};

/// What a finding means for the operator.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Worth knowing; never a reason to fail.
    Note,
    /// Costs logins or sessions in a failover or a restart. Fails with `--strict`.
    Warning,
    /// Logins or sessions break, or the agent has no effect.
    Error,
}

impl Severity {
    pub fn word(self) -> &'static str {
        match self {
            Self::Note => "note",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

/// The texts of a rule.
#[derive(Copy, Clone, Debug)]
pub struct About {
    /// Stable: scripts and `--allow` use it.
    pub id: &'static str,
    pub severity: Severity,
    pub title: &'static str,
    pub why: &'static str,
    pub fix: &'static str,
    /// Configurations that the rule finds, and does not find. Both are parts, not whole configurations.
    pub bad: &'static str,
    pub good: &'static str,
}

/// Where a rule found its mistake, and what exactly it is.
pub type Found = (Position, String);

/// A rule on a configuration `C`.
pub struct Rule<C> {
    pub about: About,
    pub check: fn(&C, &Setup) -> Vec<Found>,
}
