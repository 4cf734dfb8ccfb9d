//! The pause before the next login after logins that did not finish.
//!
//! A MySQL or MariaDB server counts connections that end during the login, and blocks the client address
//! after `max_connect_errors` (100 by default) of them in a row. The agent usually has the address of the
//! proxy. So the agent logs in less often to a server that does not answer or whose certificate it
//! rejects: a wrong CA file of the agent must not block the clients of the proxy. Once the limit is known,
//! the agent causes less than half of it before the pauses become long. Before that, it rejects a
//! certificate at most once without a pause.
//!
//! The server counts neither refused connections nor refused logins. Not here: resetting connect errors
//! of other clients (`host_block`).

use std::time::Duration;

use agent_core::{Fault, FaultKind, Phase};
use tokio::time::Instant;

/// The first unfinished logins have no pauses. Enough to observe the end of a short outage without delay,
/// and a fifth of the default limit.
const FREE: u32 = 20;

/// The longest pause for a server that does not answer, which may do so again at any time.
const SILENT: Duration = Duration::from_secs(60);

/// The longest pause where an operator has to act first: a rejected certificate, or TLS not offered.
const REJECTED: Duration = Duration::from_secs(3_600);

/// The weight of such a failure: the pauses grow faster, because repeating it is of no use.
const WEIGHT: u32 = 5;

/// The pause between the first logins after a start, when several tasks log in at once and it is not
/// known yet whether logins finish.
const FIRST: Duration = Duration::from_millis(250);

/// The default of `max_connect_errors`, for which the pauses are designed. For a lower limit they are longer.
const USUAL_LIMIT: u32 = 100;

/// Unfinished logins on one instance since the last finished one.
#[derive(Debug)]
pub struct Unfinished {
    failures: u32,
    /// The same with weights.
    weighted: u32,
    longest: Duration,
    next: Instant,
    /// Whether any login has ended, successfully or not.
    known: bool,
    limit: Option<u32>,
}

impl Unfinished {
    pub fn new(now: Instant) -> Self {
        Self { failures: 0, weighted: 0, longest: SILENT, next: now, known: false, limit: None }
    }

    /// `max_connect_errors` of the server.
    pub fn set_limit(&mut self, limit: u64) {
        self.limit = Some(u32::try_from(limit).unwrap_or(u32::MAX));
    }

    /// Reserves the next login.
    ///
    /// # Errors
    /// If it is not due yet: when it is.
    pub fn turn(&mut self, now: Instant) -> Result<(), Instant> {
        if now < self.next {
            return Err(self.next);
        }
        self.next = now + self.pause();
        Ok(())
    }

    pub fn finished(&mut self, now: Instant) {
        *self = Self { known: true, limit: self.limit, ..Self::new(now) };
    }

    pub fn failed(&mut self, fault: &Fault, now: Instant) {
        use FaultKind as K;
        let begun = matches!(fault.phase, Phase::Tls | Phase::Login);
        if !self.known {
            (self.known, self.next) = (true, now);
        }
        (self.weighted, self.longest) = match fault.kind {
            K::TimedOut | K::Disconnected if begun => (self.weighted.saturating_add(1), SILENT),
            K::CertificateInvalid | K::TlsFailed | K::TlsNotOffered | K::Protocol => {
                (self.weighted.saturating_add(WEIGHT).max(FREE), REJECTED)
            }
            // Not counted by the server.
            _ => return,
        };
        self.failures = self.failures.saturating_add(1);
        self.next = self.next.max(now + self.pause());
    }

    /// None for the first logins, then doubled each time from one second on. The longest pause at once
    /// when half of the limit is reached.
    fn pause(&self) -> Duration {
        let limit = self.limit.unwrap_or(USUAL_LIMIT).max(1);
        let most = self.longest * USUAL_LIMIT.div_ceil(limit);
        if self.failures >= (limit.saturating_sub(1) / 2).max(1) {
            return most;
        }
        match self.weighted.checked_sub(FREE) {
            None if self.known => Duration::ZERO,
            None => FIRST,
            Some(beyond) => Duration::from_secs(1 << beyond.min(12)).min(most),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The number of logins within a time if one is attempted every 100 ms.
    fn made_in(hours: u64, fault: &Fault) -> u32 {
        made_within(None, hours, fault)
    }

    fn made_within(limit: Option<u64>, hours: u64, fault: &Fault) -> u32 {
        let start = Instant::now();
        let mut unfinished = Unfinished::new(start);
        if let Some(limit) = limit {
            unfinished.set_limit(limit);
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
    fn rejecting_a_certificate_does_not_reach_the_default_limit_for_days() {
        let refused = fault(Phase::Tls, FaultKind::CertificateInvalid);
        assert!(made_in(1, &refused) <= 9);
        assert!(made_in(72, &refused) < 100);
    }

    #[test]
    fn a_certificate_is_rejected_once_before_the_first_pause() {
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
    fn less_than_half_of_a_low_limit_is_used() {
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
    fn a_finished_login_keeps_the_limit() {
        let now = Instant::now();
        let mut unfinished = Unfinished::new(now);
        unfinished.set_limit(5);
        unfinished.finished(now);
        for _ in 0..2 {
            assert_eq!(unfinished.turn(now), Ok(()));
            unfinished.failed(&fault(Phase::Login, FaultKind::Disconnected), now);
        }
        assert_eq!(unfinished.turn(now), Err(now + SILENT * 20));
    }

    #[test]
    fn a_silent_server_is_tried_often_at_first_and_then_once_a_minute() {
        let silent = fault(Phase::Tls, FaultKind::TimedOut);
        let first_hour = made_in(1, &silent);
        assert!((70..100).contains(&first_hour), "{first_hour}");
    }

    #[test]
    fn failures_that_the_server_does_not_count_have_no_pause() {
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
    fn a_finished_login_ends_the_pause() {
        let now = Instant::now();
        let mut unfinished = Unfinished::new(now);
        for _ in 0..10 {
            unfinished.failed(&fault(Phase::Tls, FaultKind::CertificateInvalid), now);
        }
        assert_eq!(unfinished.turn(now), Err(now + REJECTED));
        unfinished.finished(now);
        assert_eq!((unfinished.turn(now), unfinished.turn(now)), (Ok(()), Ok(())));
    }

    #[test]
    fn only_one_login_gets_the_next_turn() {
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
