//! PostgreSQL's times and durations, in whole microseconds.
//!
//! A session's start is compared for equality, so it has to survive the round trip exactly; the
//! driver's conversion to and from `SystemTime` does.

use std::{
    error::Error,
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio_postgres::types::{FromSql, Type};

/// Text that may not be valid UTF-8: names in shared catalogs have the encoding of the database in
/// which they were created. Invalid bytes are replaced, so that one such name does not make the
/// whole result unreadable.
pub(super) struct Text(pub(super) Arc<str>);

impl<'a> FromSql<'a> for Text {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn Error + Sync + Send>> {
        Ok(Self(String::from_utf8_lossy(raw).into()))
    }

    fn accepts(kind: &Type) -> bool {
        <&str as FromSql>::accepts(kind)
    }
}

/// Microseconds since 1970.
pub(super) fn unix_us(moment: SystemTime) -> i64 {
    match moment.duration_since(SystemTime::UNIX_EPOCH) {
        Ok(after) => microseconds(after),
        Err(before) => -microseconds(before.duration()),
    }
}

/// From microseconds since 1970.
pub(super) fn moment(unix_us: i64) -> SystemTime {
    let distance = Duration::from_micros(unix_us.unsigned_abs());
    let moment = if unix_us < 0 {
        SystemTime::UNIX_EPOCH.checked_sub(distance)
    } else {
        SystemTime::UNIX_EPOCH.checked_add(distance)
    };
    moment.unwrap_or(SystemTime::UNIX_EPOCH)
}

/// From a column of microseconds; negative values, after a clock was set back, count as zero.
pub(super) fn duration(us: i64) -> Duration {
    Duration::from_micros(u64::try_from(us).unwrap_or(0))
}

/// To a column of microseconds.
pub(super) fn microseconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_time_survives_the_round_trip_to_the_microsecond(us in -1_000_000_000_000_000_i64..4_000_000_000_000_000) {
            prop_assert_eq!(unix_us(moment(us)), us);
        }
    }

    #[test]
    fn a_negative_duration_counts_as_zero() {
        assert_eq!(duration(-5), Duration::ZERO);
        assert_eq!(duration(1_500), Duration::from_micros(1_500));
        assert_eq!(microseconds(Duration::MAX), i64::MAX);
    }
}
