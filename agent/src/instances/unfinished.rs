//! Logins that were begun and not finished, where the server counts them: how long to
//! wait before the next.
//!
//! A server of the MySQL family blocks an address after `max_connect_errors` (100 if it is
//! not set) of them in a row, and the agent's address is mostly the proxy's. So a server
//! that does not answer, or whose certificate is refused, is soon asked rarely: a wrong CA
//! file of the agent's must not shut the proxy's clients out. Where the limit is known, the
//! agent alone stays under half of it before it waits for long; until then it takes nothing
//! for granted that it has to be told: a certificate is refused at most once without a wait.
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

/// What one of those weighs, after the first.
const WEIGHT: u32 = 5;

/// Between the first logins of all, until one has shown how they end.
const FIRST: Duration = Duration::from_millis(250);

/// The limit that the pauses are made for. Where it is lower, they are longer.
const USUAL_LIMIT: u32 = 100;

/// The logins of one instance that were begun and not finished since the last that was.
#[derive(Debug)]
pub struct Unfinished {
    made: u32,
    /// The same, weighed.
    count: u32,
    most: Duration,
    free: Instant,
    /// Whether a login has ever got to its end, one way or the other.
    known: bool,
    limit: Option<u32>,
}

impl Unfinished {
    /// None yet.
    pub fn new(now: Instant) -> Self {
        Self { made: 0, count: 0, most: SILENT, free: now, known: false, limit: None }
    }

    /// `max_connect_errors` of the server.
    pub fn limited(&mut self, limit: u64) {
        self.limit = Some(u32::try_from(limit).unwrap_or(u32::MAX));
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
        *self = Self { known: true, limit: self.limit, ..Self::new(now) };
    }

    /// A login failed.
    pub fn failed(&mut self, fault: &Fault, now: Instant) {
        use FaultKind as K;
        let begun = matches!(fault.phase, Phase::Tls | Phase::Login);
        if !self.known {
            (self.known, self.free) = (true, now);
        }
        (self.count, self.most) = match fault.kind {
            K::TimedOut | K::Disconnected if begun => (self.count.saturating_add(1), SILENT),
            K::CertificateInvalid | K::TlsFailed | K::TlsNotOffered | K::Protocol => {
                (self.count.saturating_add(WEIGHT).max(FREE), HOPELESS)
            }
            // Not begun, or ended by the server: its count is as it was.
            _ => return,
        };
        self.made = self.made.saturating_add(1);
        self.free = self.free.max(now + self.pause());
    }

    /// Nothing for the first ones, then from a second on twice as long each time; the longest
    /// at once where more would come near the limit.
    fn pause(&self) -> Duration {
        let limit = self.limit.unwrap_or(USUAL_LIMIT).max(1);
        let most = self.most * USUAL_LIMIT.div_ceil(limit);
        if self.made >= (limit.saturating_sub(1) / 2).max(1) {
            return most;
        }
        match self.count.checked_sub(FREE) {
            None if self.known => Duration::ZERO,
            None => FIRST,
            Some(beyond) => Duration::from_secs(1 << beyond.min(12)).min(most),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many logins are made in so long by somebody who tries every 100 ms.
    fn made_in(hours: u64, fault: &Fault) -> u32 {
        made_within(None, hours, fault)
    }

    fn made_within(limit: Option<u64>, hours: u64, fault: &Fault) -> u32 {
        let start = Instant::now();
        let mut unfinished = Unfinished::new(start);
        if let Some(limit) = limit {
            unfinished.limited(limit);
        }
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
    fn a_certificate_is_refused_once_and_then_waited_for() {
        let now = Instant::now();
        let mut unfinished = Unfinished::new(now);
        // Several tasks begin at once.
        assert_eq!((unfinished.turn(now), unfinished.turn(now)), (Ok(()), Err(now + FIRST)));
        unfinished.failed(&fault(Phase::Tls, FaultKind::CertificateInvalid), now);
        assert_eq!(unfinished.turn(now), Err(now + Duration::from_secs(1)));
        assert_eq!(unfinished.turn(now + Duration::from_secs(1)), Ok(()));
        unfinished.failed(&fault(Phase::Tls, FaultKind::CertificateInvalid), now);
        assert!(unfinished.turn(now + Duration::from_secs(30)).is_err());
    }

    #[test]
    fn a_low_limit_is_kept_half_of() {
        let refused = fault(Phase::Tls, FaultKind::CertificateInvalid);
        let silent = fault(Phase::Login, FaultKind::TimedOut);
        for limit in [3, 5, 10, 30, 60, 99, 100, 1_000, u64::MAX] {
            let half = u32::try_from(limit.min(200)).unwrap().div_ceil(2);
            assert!(made_within(Some(limit), 1, &refused) < half.max(2) + 1, "{limit}");
            let made = made_within(Some(limit), 1, &silent);
            assert!(u64::from(made) < limit, "{made} of {limit} in an hour of silence");
        }
        assert_eq!(made_within(Some(5), 19, &refused), 2);
    }

    #[test]
    fn a_limit_is_not_forgotten_by_a_login() {
        let now = Instant::now();
        let mut unfinished = Unfinished::new(now);
        unfinished.limited(5);
        unfinished.finished(now);
        for _ in 0..2 {
            assert_eq!(unfinished.turn(now), Ok(()));
            unfinished.failed(&fault(Phase::Login, FaultKind::Disconnected), now);
        }
        assert_eq!(unfinished.turn(now), Err(now + SILENT * 20));
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
