//! Moments and durations as PostgreSQL counts them: whole microseconds.
//!
//! A session's start is compared for equality, so it must come back to the
//! microsecond; the driver's conversion to and from `SystemTime` keeps it whole.

use std::time::{Duration, SystemTime};

/// A moment in microseconds since 1970.
pub(super) fn unix_us(moment: SystemTime) -> i64 {
    match moment.duration_since(SystemTime::UNIX_EPOCH) {
        Ok(after) => microseconds(after),
        Err(before) => -microseconds(before.duration()),
    }
}

/// The moment of so many microseconds since 1970.
pub(super) fn moment(unix_us: i64) -> SystemTime {
    let distance = Duration::from_micros(unix_us.unsigned_abs());
    let moment = if unix_us < 0 {
        SystemTime::UNIX_EPOCH.checked_sub(distance)
    } else {
        SystemTime::UNIX_EPOCH.checked_add(distance)
    };
    moment.unwrap_or(SystemTime::UNIX_EPOCH)
}

/// Microseconds of a column. A clock that was set back makes them negative: none.
pub(super) fn duration(us: i64) -> Duration {
    Duration::from_micros(u64::try_from(us).unwrap_or(0))
}

/// A duration as a column's microseconds.
pub(super) fn microseconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_moment_comes_back_to_the_microsecond(us in -1_000_000_000_000_000_i64..4_000_000_000_000_000) {
            prop_assert_eq!(unix_us(moment(us)), us);
        }
    }

    #[test]
    fn a_clock_set_back_gives_no_duration() {
        assert_eq!(duration(-5), Duration::ZERO);
        assert_eq!(duration(1_500), Duration::from_micros(1_500));
        assert_eq!(microseconds(Duration::MAX), i64::MAX);
    }
}
