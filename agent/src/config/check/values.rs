//! Single values, and unique names.

use std::{collections::BTreeSet, path::PathBuf, time::Duration};

use agent_database::Address;

use super::{
    super::{Problem, file::At, value},
    Check, Invalid,
};

impl Check {
    pub(super) fn name(&mut self, at: &At<String>, what: &str) {
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        if at.value().is_empty() || !at.value().chars().all(plain) {
            let message = format!("`{}` cannot be the name of a {what}", at.value());
            let hint = "it stands in URLs and metrics: letters, digits, `-`, `_` and `.`";
            self.problem(Problem::at(at.location(), message).hint(hint));
        }
    }

    pub(super) fn distinct<'a>(&mut self, names: impl Iterator<Item = &'a At<String>>, what: &str) {
        let mut seen = BTreeSet::new();
        for name in names {
            if !seen.insert(name.value()) {
                let message = format!("there are two {what}s called `{}`", name.value());
                self.problem(Problem::at(name.location(), message).hint("give each a name of its own"));
            }
        }
    }

    pub(super) fn address(&mut self, at: &At<String>) -> Option<Address> {
        match value::host_port(at.value()) {
            Ok((host, port)) => Some(Address::new(host, port)),
            Err(hint) => {
                self.problem(
                    Problem::at(at.location(), format!("`{}` is not HOST:PORT", at.value())).hint(hint),
                );
                None
            }
        }
    }

    pub(super) fn duration(&mut self, at: Option<&At<String>>, default: Duration) -> Option<Duration> {
        self.optional_duration(at).ok().map(|duration| duration.unwrap_or(default))
    }

    pub(super) fn optional_duration(&mut self, at: Option<&At<String>>) -> Result<Option<Duration>, Invalid> {
        let Some(at) = at else { return Ok(None) };
        value::duration(at.value()).map(Some).map_err(|hint| {
            let message = format!("`{}` is not a duration", at.value());
            self.problem(Problem::at(at.location(), message).hint(hint));
            Invalid
        })
    }

    pub(super) fn share(&mut self, at: Option<&At<String>>, default: f64) -> Option<f64> {
        let Some(at) = at else { return Some(default) };
        match value::share(at.value()) {
            Ok(share) => Some(share),
            Err(hint) => {
                self.problem(
                    Problem::at(at.location(), format!("`{}` is not a percentage", at.value())).hint(hint),
                );
                None
            }
        }
    }

    /// A relative path would depend on the working directory, which differs for `release`.
    pub(super) fn path(&mut self, at: Option<&At<String>>, default: &str) -> Option<PathBuf> {
        let Some(at) = at else { return Some(default.into()) };
        if at.value().starts_with('/') {
            return Some(at.value().into());
        }
        let message = format!("`{}` is not an absolute path", at.value());
        self.problem(Problem::at(at.location(), message).hint(format!("begin with `/`, like {default}")));
        None
    }
}
