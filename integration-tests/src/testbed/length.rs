//! How long tests run. `make test` runs those in modules called `long` briefly; `make test-long`
//! sets `FULL_LENGTH=1` and runs them for as long as is promised. The assertions are the same.

use std::time::Duration;

/// The variable's value if it is set; else `full` with `FULL_LENGTH=1`, else `brief`.
///
/// # Panics
/// If the variable's value is no number.
#[expect(clippy::expect_used, reason = "a mistake in the environment of the test")]
pub fn number(variable: &str, brief: u64, full: u64) -> u64 {
    match std::env::var(variable) {
        Ok(value) => value.parse().expect("a number"),
        Err(_) if std::env::var("FULL_LENGTH").is_ok_and(|value| value == "1") => full,
        Err(_) => brief,
    }
}

/// As [`number`], in seconds.
pub fn seconds(variable: &str, brief: u64, full: u64) -> Duration {
    Duration::from_secs(number(variable, brief, full))
}

/// How long a fault of the agent or of AWS lasts: `RDS_LB_FREEZE_S`, or 5 s, or a minute.
pub fn fault() -> Duration {
    seconds("RDS_LB_FREEZE_S", 5, 60)
}
