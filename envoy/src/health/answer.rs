//! The answer to a check over HTTP.

use crate::eds::Health;

/// On a 200: others are preferred. Envoy sends new sessions here once too few others are healthy.
pub const DEGRADED: &str = "x-envoy-degraded";

/// On a 503 only: Envoy leaves the endpoint out of the count of healthy ones
/// (`excluded_via_immediate_hc_fail` in `/clusters`), so that the others get all sessions with any
/// overprovisioning factor. It does not make a check fail sooner: a 503 and a gRPC `NOT_SERVING` fail at
/// once anyway; `unhealthy_threshold` is for checks without an answer.
pub const IMMEDIATE_FAILURE: &str = "x-envoy-immediate-health-check-fail";

/// The answer to one check.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// 200 or 503.
    pub status: u16,
    /// A header whose presence is what counts.
    pub header: Option<(&'static str, &'static str)>,
}

impl Answer {
    pub const PASS: Self = Self { status: 200, header: None };

    /// The answer for an endpoint in this state; `None` is unknown.
    ///
    /// A drain is no failure: with `close_connections_on_host_health_failure` a failed check
    /// would end the sessions that a drain leaves alone.
    pub fn of(health: Option<Health>) -> Self {
        match health {
            Some(Health::Unhealthy) => Self { status: 503, header: Some((IMMEDIATE_FAILURE, "true")) },
            Some(Health::Draining | Health::Degraded) => {
                Self { status: 200, header: Some((DEGRADED, "true")) }
            }
            Some(Health::Healthy) | None => Self::PASS,
        }
    }

    /// Whether it is `SERVING` in gRPC, which has no degraded state.
    pub fn serves(self) -> bool {
        self.status == 200
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_unhealthy_fails() {
        for health in [None, Some(Health::Healthy), Some(Health::Draining), Some(Health::Degraded)] {
            let answer = Answer::of(health);
            assert_eq!(answer.status, 200, "{health:?}");
            assert_ne!(answer.header.map(|(name, _)| name), Some(IMMEDIATE_FAILURE));
            assert!(answer.serves());
        }
        let down = Answer::of(Some(Health::Unhealthy));
        assert_eq!((down.status, down.header), (503, Some((IMMEDIATE_FAILURE, "true"))));
        assert!(!down.serves());
    }

    #[test]
    fn a_drain_is_degraded_not_failed() {
        assert_eq!(Answer::of(Some(Health::Draining)).header, Some((DEGRADED, "true")));
        assert_eq!(Answer::of(Some(Health::Degraded)).header, Some((DEGRADED, "true")));
    }
}
