//! The conditions of `.if` and `.elif` (section 2.4 of HAProxy's manual), as far as they can be known here.

use super::words::Environment;
use crate::setup::Version;

/// `None` is unknown.
pub type Truth = Option<bool>;

/// The depth of nested expressions that is read; deeper is unknown.
const DEPTH: usize = 32;

/// The value of a condition.
pub fn holds(text: &str, environment: &Environment, version: Option<Version>) -> Truth {
    let mut parser = Parser { rest: text, environment, version };
    let truth = parser.any_of(DEPTH);
    if parser.rest.trim_start().is_empty() { truth } else { None }
}

struct Parser<'a> {
    rest: &'a str,
    environment: &'a Environment,
    version: Option<Version>,
}

impl<'a> Parser<'a> {
    fn any_of(&mut self, depth: usize) -> Truth {
        let mut truth = self.all_of(depth);
        while self.takes("||") {
            truth = match (truth, self.all_of(depth)) {
                (Some(true), _) | (_, Some(true)) => Some(true),
                (Some(false), Some(false)) => Some(false),
                _ => None,
            };
        }
        truth
    }

    fn all_of(&mut self, depth: usize) -> Truth {
        let mut truth = self.one(depth);
        while self.takes("&&") {
            truth = match (truth, self.one(depth)) {
                (Some(false), _) | (_, Some(false)) => Some(false),
                (Some(true), Some(true)) => Some(true),
                _ => None,
            };
        }
        truth
    }

    fn one(&mut self, depth: usize) -> Truth {
        let depth = depth.checked_sub(1)?;
        if self.takes("!") {
            return self.one(depth).map(|truth| !truth);
        }
        if self.takes("(") {
            let truth = self.any_of(depth);
            return if self.takes(")") { truth } else { None };
        }
        let name = self.until(|c| !c.is_ascii_alphanumeric() && c != '_');
        if let Ok(number) = name.parse::<u64>() {
            return Some(number != 0);
        }
        if !self.takes("(") {
            return None;
        }
        let inside = self.until(|c| c == ')');
        if !self.takes(")") {
            return None;
        }
        let mut arguments = inside.split(',').map(|argument| argument.trim().trim_matches(['"', '\'']));
        let (first, second) = (arguments.next().unwrap_or_default(), arguments.next());
        match (name, second) {
            // A variable that the caller does not know may be set where HAProxy runs.
            ("defined", _) => self.environment.contains_key(first).then_some(true),
            ("streq", Some(second)) => known(first, second).then_some(first == second),
            ("strneq", Some(second)) => known(first, second).then_some(first != second),
            ("strstr", Some(second)) => known(first, second).then_some(first.contains(second)),
            ("version_atleast", _) => Some(self.version? >= version(first)?),
            ("version_before", _) => Some(self.version? < version(first)?),
            _ => None,
        }
    }

    fn takes(&mut self, token: &str) -> bool {
        self.rest = self.rest.trim_start();
        match self.rest.strip_prefix(token) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    fn until(&mut self, end: impl Fn(char) -> bool) -> &'a str {
        self.rest = self.rest.trim_start();
        let (found, rest) = self.rest.split_at(self.rest.find(end).unwrap_or(self.rest.len()));
        self.rest = rest;
        found
    }
}

fn known(first: &str, second: &str) -> bool {
    !first.contains("${") && !second.contains("${")
}

/// Major and minor of `3.1` or `3.1-dev3`.
pub fn version(text: &str) -> Option<Version> {
    let mut parts = text.split(|c: char| !c.is_ascii_digit());
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn conditions_are_true_false_or_unknown() {
        let environment = Environment::from([("SITE".to_owned(), "eu".to_owned())]);
        let cases = [
            ("version_atleast(3.1)", Some(false)),
            ("!version_atleast(3.1)", Some(true)),
            ("version_before(3.1) && 1", Some(true)),
            ("version_atleast(2.6-dev0) || feature(QUIC)", Some(true)),
            ("feature(QUIC)", None),
            ("!feature(QUIC)", None),
            ("(streq(eu,eu) && !strneq(a,b))", Some(false)),
            ("strstr(\"europe\",eu)", Some(true)),
            ("defined(SITE)", Some(true)),
            ("defined(OTHER)", None),
            ("0", Some(false)),
            ("1 1", None),
            ("", None),
        ];
        for (text, expected) in cases {
            assert_eq!(holds(text, &environment, Some((3, 0))), expected, "{text}");
        }
        assert_eq!(holds("version_atleast(3.1)", &environment, None), None);
    }

    proptest! {
        #[test]
        fn any_condition_is_read(text in any::<String>(), deep in "[!(]{0,5000}[)&|0-9]{0,50}") {
            holds(&text, &Environment::new(), None);
            holds(&deep, &Environment::new(), Some((3, 0)));
        }
    }
}
