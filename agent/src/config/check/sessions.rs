//! The session policy: invalid values, and values that do not fit together.

use std::time::Duration;

use agent_core::plan::{self, BreakerPolicy, Policy};

use super::{
    super::{
        Problem,
        file::{self, At},
    },
    Check,
};

/// The lifetime of an IAM token.
const TOKEN_LIFE: Duration = Duration::from_secs(15 * 60);

/// A shorter drain would have no effect.
const SHORTEST_DRAIN: Duration = Duration::from_secs(1);

/// A return takes this long to be seen.
const SOON: Duration = Duration::from_secs(3);

impl Check {
    pub(super) fn sessions(&mut self, file: &file::Sessions) -> Option<Policy> {
        let default = Policy::default();
        let max_age = self.duration(file.max_age.as_ref(), default.max_age);
        let quiet = self.duration(file.quiet.as_ref(), default.quiet);
        let quiet_min = self.duration(file.quiet_min.as_ref(), default.quiet_min);
        let drain_deadline = self.duration(file.drain_deadline.as_ref(), default.drain_deadline);
        let force_after = self.optional_duration(file.force_after.as_ref());
        let demotion_grace = self.optional_duration(file.demotion_grace.as_ref());
        let drain_share = self.share(file.drain_share.as_ref(), default.drain_share);
        let capacity_floor = self.share(file.capacity_floor.as_ref(), default.capacity_floor);
        let networks: Vec<Option<plan::Network>> =
            file.exempt.networks.iter().map(|network| self.network(network)).collect();
        let breaker = self.breaker(&file.breaker);
        let login_budget = file.login_budget.as_ref().map_or(default.login_budget, |budget| *budget.value());
        let policy = Policy {
            mode: match file.mode {
                None | Some(file::Mode::Observe) => plan::Mode::Observe,
                Some(file::Mode::Drain) => plan::Mode::Drain,
                Some(file::Mode::Retire) => plan::Mode::Retire,
            },
            max_age: max_age?,
            quiet: quiet?,
            quiet_min: quiet_min?,
            busy: match file.busy {
                None | Some(file::Busy::Hold) => plan::Busy::Hold,
                Some(file::Busy::Catch) => plan::Busy::Catch,
            },
            close_via: match file.close_via {
                None | Some(file::CloseVia::Database) => plan::CloseVia::Database,
                Some(file::CloseVia::Proxy) => plan::CloseVia::Proxy,
            },
            login_budget,
            failover_budget: file
                .failover_budget
                .as_ref()
                .map_or(default.failover_budget, |budget| *budget.value()),
            drain_share: drain_share?,
            drain_deadline: drain_deadline?,
            capacity_floor: capacity_floor?,
            exempt: plan::Exempt {
                users: file.exempt.users.clone(),
                databases: file.exempt.databases.clone(),
                applications: file.exempt.applications.clone(),
                networks: networks.into_iter().collect::<Option<_>>()?,
            },
            scope: file
                .users
                .as_ref()
                .map_or(plan::Scope::Iam, |users| plan::Scope::Users(users.value().clone())),
            force_after: force_after.ok()?,
            demotion_grace: demotion_grace.ok()?,
            breaker: breaker?,
            ..default
        };
        self.policy(file, &policy);
        Some(policy)
    }

    fn breaker(&mut self, file: &file::Breaker) -> Option<BreakerPolicy> {
        let default = Policy::default().breaker;
        let return_within = self.duration(file.return_within.as_ref(), default.return_within);
        let retry_after = self.duration(file.retry_after.as_ref(), default.retry_after);
        if let Some(at) =
            file.return_within.as_ref().filter(|_| return_within.is_some_and(|time| time < SOON))
        {
            let hint = "sessions are listed once a second while a return is awaited; the minimum is 3s";
            self.problem(Problem::at(at.location(), "`return_within` is too short").hint(hint));
        }
        if let Some(at) = file.misses.as_ref().filter(|at| *at.value() == 0) {
            let hint = "the minimum is 1";
            self.problem(Problem::at(at.location(), "`misses` is 0: every group would be paused").hint(hint));
        }
        Some(BreakerPolicy {
            return_within: return_within?,
            misses: file.misses.as_ref().map_or(default.misses, |misses| *misses.value()),
            retry_after: retry_after?,
        })
    }

    /// Values that do not fit together, or are unusual.
    fn policy(&mut self, file: &file::Sessions, policy: &Policy) {
        if let Some(at) = &file.max_age {
            if policy.max_age < Duration::from_secs(5) {
                let hint =
                    "each close is a login for the client; 14m is the lifetime of a token, the minimum is 5s";
                self.problem(Problem::at(at.location(), "`max_age` is too short").hint(hint));
            } else if policy.max_age > TOKEN_LIFE {
                let hint = "with 14m no session outlives one token";
                let message = "`max_age` is longer than the lifetime of a token, 15 minutes";
                self.warnings.push(Problem::at(at.location(), message).hint(hint));
            }
        }
        if let Some(at) = file.quiet_min.as_ref().or(file.quiet.as_ref()) {
            if policy.quiet_min > policy.quiet {
                let message = "`quiet_min` is longer than `quiet`";
                self.problem(
                    Problem::at(at.location(), message).hint("`quiet` is asked for first, `quiet_min` later"),
                );
            }
            if policy.quiet_min < Duration::from_millis(200) {
                let hint = "clients were seen to fail below 200ms; the minimum is 200ms";
                self.problem(Problem::at(at.location(), "`quiet_min` is too short").hint(hint));
            }
            if policy.quiet > policy.window() {
                let hint = format!("the window is {}s at this `max_age`", policy.window().as_secs_f64());
                let message = "`quiet` is longer than the window in which a session may go";
                self.warnings.push(Problem::at(at.location(), message).hint(hint));
            }
        }
        if let Some(at) = file.users.as_ref().filter(|users| users.value().is_empty()) {
            let hint = "name users, or leave it out: then those who log in by IAM";
            self.problem(Problem::at(at.location(), "`users` is empty").hint(hint));
        }
        if let Some(at) = file.drain_share.as_ref().filter(|_| policy.drain_share < 0.01) {
            let hint = "a server would be drained for its first due session; the minimum is 1%";
            self.problem(Problem::at(at.location(), "`drain_share` is too small").hint(hint));
        }
        if let Some(at) = file.drain_deadline.as_ref().filter(|_| policy.drain_deadline < SHORTEST_DRAIN) {
            let hint = "a drain would end before it begins; the minimum is 1s";
            self.problem(Problem::at(at.location(), "`drain_deadline` is too short").hint(hint));
        }
        if let Some(at) = file.login_budget.as_ref().filter(|at| *at.value() < 2) {
            let hint = "the minimum is 2: one close and one login per second";
            self.problem(Problem::at(at.location(), "`login_budget` is too small").hint(hint));
        }
        for (at, what) in [(&file.force_after, "force_after"), (&file.demotion_grace, "demotion_grace")] {
            if let Some(at) = at {
                let message = format!("`{what}` closes sessions inside transactions");
                let hint = "leave it out, and such sessions are held and reported instead";
                self.warnings.push(Problem::at(at.location(), message).hint(hint));
            }
        }
    }

    fn network(&mut self, at: &At<String>) -> Option<plan::Network> {
        match at.value().parse() {
            Ok(network) => Some(network),
            Err(error) => {
                let words = error.replacen(": the prefix", "; the prefix", 1);
                let problem = Problem::advising(at.location(), &words);
                self.problem(if problem.hint.is_some() {
                    problem
                } else {
                    problem.hint("write it like 10.0.0.0/8")
                });
                None
            }
        }
    }
}
