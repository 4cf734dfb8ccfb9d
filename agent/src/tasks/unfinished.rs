//! Logins that were begun and not finished, where the server counts them: how long to
//! wait before the next.
//!
//! A server of the MySQL family blocks an address after `max_connect_errors` (100 if it is
//! not set) of them in a row, and the agent's address is mostly the proxy's. So a server
//! that does not answer, or whose certificate is refused, is soon asked rarely: a wrong CA
//! file of the agent's must not shut the proxy's clients out.
//!
//! Not here: resetting a count that others have driven up (`host_block`). A refused
//! connection is not counted by the server, nor is a refused login.

use std::time::Duration;

use agent_core::{Fault, FaultKind, Phase};
use tokio::time::Instant;

/// So many are made at any pace: enough to see a short standstill to its end.
const FREE: u32 = 20;

/// Between two of them, at a server that may answer again at any moment.
const SILENT: Duration = Duration::from_secs(60);

/// Between two of them, where somebody has to do something first.
const HOPELESS: Duration = Duration::from_secs(3_600);

/// What one of those weighs.
const WEIGHT: u32 = 5;

/// The logins of one instance that were begun and not finished since the last that was.
#[derive(Debug)]
pub struct Unfinished {
    count: u32,
    most: Duration,
    free: Instant,
}

impl Unfinished {
    /// None yet.
    pub fn new(now: Instant) -> Self {
        Self { count: 0, most: SILENT, free: now }
    }

    /// Takes a turn to log in, which nobody else has then until the next is due.
    ///
    /// # Errors
    /// When the next is due.
    pub fn turn(&mut self, now: Instant) -> Result<(), Instant> {
        if now < self.free {
            return Err(self.free);
        }
        self.free = now + self.pause();
        Ok(())
    }

    /// A login got through to its end.
    pub fn finished(&mut self, now: Instant) {
        *self = Self::new(now);
    }

    /// A login failed.
    pub fn failed(&mut self, fault: &Fault, now: Instant) {
        use FaultKind as K;
        let begun = matches!(fault.phase, Phase::Tls | Phase::Login);
        (self.count, self.most) = match fault.kind {
            K::TimedOut | K::Disconnected if begun => (self.count.saturating_add(1), SILENT),
            K::CertificateInvalid | K::TlsFailed | K::TlsNotOffered | K::Protocol => {
                (self.count.saturating_add(WEIGHT), HOPELESS)
            }
            // Not begun, or ended by the server: its count is as it was.
            _ => return,
        };
        self.free = self.free.max(now + self.pause());
    }

    /// Nothing for the first ones, then from a second on twice as long each time.
    fn pause(&self) -> Duration {
        match self.count.checked_sub(FREE) {
            None => Duration::ZERO,
            Some(beyond) => Duration::from_secs(1 << beyond.min(12)).min(self.most),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many logins are made in so long by somebody who tries every 100 ms.
    fn made_in(hours: u64, fault: &Fault) -> u32 {
        let start = Instant::now();
        let mut unfinished = Unfinished::new(start);
        let mut made = 0;
        for tick in 0..hours * 36_000 {
            let now = start + Duration::from_millis(100) * u32::try_from(tick).unwrap();
            if unfinished.turn(now).is_ok() {
                made += 1;
                unfinished.failed(fault, now);
            }
        }
        made
    }

    fn fault(phase: Phase, kind: FaultKind) -> Fault {
        Fault::new(phase, kind, "")
    }

    #[test]
    fn a_certificate_that_is_refused_blocks_nobody_for_days() {
        let refused = fault(Phase::Tls, FaultKind::CertificateInvalid);
        assert!(made_in(1, &refused) <= 9);
        assert!(made_in(72, &refused) < 100);
    }

    #[test]
    fn a_standstill_is_asked_often_and_then_once_a_minute() {
        let silent = fault(Phase::Tls, FaultKind::TimedOut);
        let first_hour = made_in(1, &silent);
        assert!((70..100).contains(&first_hour), "{first_hour}");
    }

    #[test]
    fn what_the_server_does_not_count_has_no_limit() {
        for fault in [
            fault(Phase::Tcp, FaultKind::ConnectionRefused),
            fault(Phase::Tcp, FaultKind::TimedOut),
            fault(Phase::Login, FaultKind::LoginRefused),
            fault(Phase::Query, FaultKind::TimedOut),
        ] {
            assert_eq!(made_in(1, &fault), 36_000, "{fault:?}");
        }
    }

    #[test]
    fn a_login_that_is_finished_ends_the_wait() {
        let now = Instant::now();
        let mut unfinished = Unfinished::new(now);
        for _ in 0..10 {
            unfinished.failed(&fault(Phase::Tls, FaultKind::CertificateInvalid), now);
        }
        assert_eq!(unfinished.turn(now), Err(now + HOPELESS));
        unfinished.finished(now);
        assert_eq!((unfinished.turn(now), unfinished.turn(now)), (Ok(()), Ok(())));
    }

    #[test]
    fn only_one_takes_a_turn_that_is_due() {
        let now = Instant::now();
        let mut unfinished = Unfinished::new(now);
        for _ in 0..FREE {
            unfinished.failed(&fault(Phase::Login, FaultKind::Disconnected), now);
        }
        let due = now + Duration::from_secs(1);
        assert_eq!(unfinished.turn(now), Err(due));
        assert_eq!(unfinished.turn(due), Ok(()));
        assert!(unfinished.turn(due).is_err());
    }
}
