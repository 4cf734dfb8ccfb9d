//! The rules, by what they are about.
//!
//! - [`instances`]: instances and clusters as they are. [`pending`]: what is about to happen to them.
//! - [`agreement`]: what the agent's configuration has to agree with.
//! - [`parameters`]: parameter groups. [`policies`]: policies of IAM.

mod agreement;
mod instances;
mod parameters;
mod pending;
mod policies;

use super::{Answers, Part};
use crate::rule::{Found, Rule};

/// All rules, in the order of the catalogue.
pub fn all() -> impl Iterator<Item = &'static Rule<Answers>> {
    let parts = [instances::RULES, agreement::RULES, pending::RULES, policies::RULES, parameters::RULES];
    parts.into_iter().flatten()
}

fn each(parts: &[Part], of: impl Fn(&Part) -> Option<Found>) -> Vec<Found> {
    parts.iter().filter_map(of).collect()
}

/// The days since 1970 of a date at the beginning of a text, by the Gregorian calendar.
fn day(text: &str) -> Option<i64> {
    let mut parts = text.get(..10)?.split('-').map(str::parse::<i64>);
    let (year, month, day) = (parts.next()?.ok()?, parts.next()?.ok()?, parts.next()?.ok()?);
    // A year that begins in March has its leap day at the end.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    Some(
        365 * year + year.div_euclid(4) - year.div_euclid(100)
            + year.div_euclid(400)
            + (153 * month + 2) / 5
            + day
            - 719_469,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_counted_from_1970() {
        for (text, expected) in
            [("1970-01-01", 0), ("2000-03-01T00:00:00Z", 11_017), ("2024-02-29", 19_782), ("1969-12-31", -1)]
        {
            assert_eq!(day(text), Some(expected), "{text}");
        }
        assert_eq!(day("soon"), None);
    }
}
