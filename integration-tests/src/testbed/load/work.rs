//! What a client does.

use std::time::Duration;

use fastrand::Rng;

/// The work of one client.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Work {
    /// Over and over: BEGIN, UPDATE of its own row, a pause, SELECT of it, COMMIT, a pause.
    /// Looks at its socket before BEGIN.
    Transactions {
        think: Think,
        /// One more try, on a new session, when BEGIN fails with 57P01, 1927 or a close.
        retry_begin: bool,
    },
    /// The same without writing, for replicas: a read-only BEGIN, SELECT, a pause, SELECT, COMMIT.
    Reads { think: Think },
    /// Over and over: INSERT of one row with an id of its own, in autocommit, a pause. Looks
    /// at its socket before INSERT; never tries one id twice.
    Autocommit { think: Think },
    /// BEGIN, UPDATE of its own row, stays in the transaction for so long, COMMIT; then idle.
    Hold {
        /// How long the transaction is open.
        open_for: Duration,
    },
    /// One query, then idle.
    Idle,
    /// LISTEN, then idle; PostgreSQL only.
    Listen,
    /// Takes a session advisory lock of its own (MariaDB: GET_LOCK), then idle.
    AdvisoryLock,
}

impl Work {
    /// A word for it; also its `application_name` or `program_name`, with `load-` before it.
    pub fn word(&self) -> &'static str {
        match self {
            Work::Transactions { .. } => "transactions",
            Work::Reads { .. } => "reads",
            Work::Autocommit { .. } => "autocommit",
            Work::Hold { .. } => "hold",
            Work::Idle => "idle",
            Work::Listen => "listen",
            Work::AdvisoryLock => "advisory-lock",
        }
    }
}

/// How long the pauses of a client are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Think {
    /// 1–50 ms, and one in ten 0.2–2 s: the usual client of a web application.
    Mixed,
    /// 1–50 ms, never longer.
    Busy,
}

impl Think {
    pub(super) fn pause(self, random: &mut Rng) -> Duration {
        let long = self == Think::Mixed && random.u8(0..10) == 0;
        let milliseconds = if long { 200.0..2000.0 } else { 1.0..50.0_f64 };
        let (least, most) = (milliseconds.start, milliseconds.end);
        Duration::from_secs_f64((least + random.f64() * (most - least)) / 1000.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn busy_clients_never_pause_longer_than_50_ms() {
        let mut random = Rng::with_seed(1);
        for _ in 0..10_000 {
            let pause = Think::Busy.pause(&mut random).as_secs_f64();
            assert!((0.001..0.050).contains(&pause), "{pause}");
        }
    }

    #[test]
    fn one_pause_in_ten_is_long() {
        let mut random = Rng::with_seed(2);
        let pauses: Vec<f64> = (0..10_000).map(|_| Think::Mixed.pause(&mut random).as_secs_f64()).collect();
        let long = pauses.iter().filter(|pause| **pause >= 0.2).count();
        assert!((850..1150).contains(&long), "{long}");
        assert!(pauses.iter().all(|pause| (0.001..0.05).contains(pause) || (0.2..2.0).contains(pause)));
    }
}
