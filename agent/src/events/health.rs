//! Logins, instances and verdicts.

use agent_core::{
    Fault, InstanceId, ServerId,
    health::{InstanceView, Role, Source, State, Status, Verdict},
};
use agent_database::LoginReport;
use tracing::{error, info, warn};

use super::{Ended, Event, rounded};
use crate::metrics::{
    Metrics,
    labels::{LoginResult, OfLogin, OfPhase, OfSource, OfState, Phase, Word},
};

fn count(metrics: &Metrics, id: &InstanceId, result: LoginResult, report: &LoginReport) {
    let (database, instance) = (id.database.to_string(), id.instance.to_string());
    let labels = OfLogin { database: database.clone(), instance: instance.clone(), result };
    metrics.logins.get_or_create(&labels).inc();
    let phases = &report.phases;
    for (phase, took) in [
        (Phase::Dns, phases.dns),
        (Phase::Tcp, phases.tcp),
        (Phase::Tls, phases.tls),
        (Phase::Login, phases.login),
    ] {
        if let Some(took) = took {
            let labels = OfPhase { database: database.clone(), instance: instance.clone(), phase };
            metrics.login_seconds.get_or_create(&labels).observe(took.as_secs_f64());
        }
    }
    if let Some(certificate) = &report.certificate
        && let Ok(since) = certificate.not_after.duration_since(std::time::UNIX_EPOCH)
    {
        let seconds = i64::try_from(since.as_secs()).unwrap_or(i64::MAX);
        metrics.certificate_expires.get_or_create(&id.into()).set(seconds);
    }
}

/// A login failed, with everything known about it.
///
/// Do: `blame` names the side at fault; `rds-lb-agent check` repeats the login with all details.
#[derive(Debug)]
pub struct LoginFailed<'a> {
    pub instance: &'a InstanceId,
    pub user: &'a str,
    pub fault: &'a Fault,
    pub report: &'a LoginReport,
    pub token_age_s: Option<f64>,
    pub token_expires_in_s: Option<f64>,
    /// `false` for a retry that failed in the same way: it is counted and not logged.
    pub news: bool,
}

impl Event for LoginFailed<'_> {
    fn emit(&self, metrics: &Metrics) {
        count(metrics, self.instance, LoginResult::Failed(self.fault.kind), self.report);
        if !self.news {
            return;
        }
        let tls = self.report.tls.as_ref();
        warn!(
            instance = %self.instance,
            user = self.user,
            phase = %Word::of(&self.fault.phase),
            kind = %Word::of(&self.fault.kind),
            code = self.fault.code,
            blame = %Word::of(&self.fault.blame()),
            token_age_s = self.token_age_s.map(rounded),
            token_expires_in_s = self.token_expires_in_s.map(rounded),
            source = self.report.local_address.map(display),
            address = self.report.server_address.map(display),
            tls_version = tls.map(|tls| &*tls.version),
            tls_cipher = tls.map(|tls| &*tls.cipher),
            tls_group = tls.and_then(|tls| tls.group.as_deref()),
            certificate = self.report.certificate.as_ref().map(|certificate| &*certificate.subject),
            error = self.fault.message,
            "login failed"
        );
    }
}

/// A login works after failures.
#[derive(Debug)]
pub struct LoginWorks<'a> {
    pub instance: &'a InstanceId,
    pub user: &'a str,
    pub report: &'a LoginReport,
    /// The failures before, if any.
    pub after: Option<Ended>,
}

impl Event for LoginWorks<'_> {
    fn emit(&self, metrics: &Metrics) {
        count(metrics, self.instance, LoginResult::Ok, self.report);
        if let Some(after) = self.after {
            info!(
                instance = %self.instance,
                user = self.user,
                failures = after.failures,
                lasted_s = rounded(after.lasted.as_secs_f64()),
                took_ms = rounded(self.report.phases.total().as_secs_f64() * 1e3),
                tls_version = self.report.tls.as_ref().map(|tls| &*tls.version),
                "login works"
            );
        }
    }
}

/// A source on an instance is lost after a good login, or is back.
///
/// Do: look at the error: a right was revoked or the server is overloaded.
#[derive(Debug)]
pub struct SourceChanged<'a> {
    pub instance: &'a InstanceId,
    pub source: Source,
    pub lost: Option<&'a Fault>,
}

impl Event for SourceChanged<'_> {
    fn emit(&self, metrics: &Metrics) {
        let Self { instance, source, lost } = self;
        let labels = OfSource {
            database: instance.database.to_string(),
            instance: instance.instance.to_string(),
            source: Word::of(source),
        };
        metrics.source_up.get_or_create(&labels).set(lost.is_none().into());
        let source = Word::of(source);
        let Some(fault) = lost else {
            info!(%instance, %source, "the source is back");
            return;
        };
        metrics.source_losses.get_or_create(&labels).inc();
        warn!(
            %instance,
            %source,
            phase = %Word::of(&fault.phase),
            kind = %Word::of(&fault.kind),
            code = fault.code,
            blame = %Word::of(&fault.blame()),
            error = fault.message,
            "a source is lost; what depends on it is held"
        );
    }
}

/// No token could be generated.
///
/// Do: check the AWS credentials and the region; `rds-lb-agent token` repeats it.
#[derive(Debug)]
pub struct TokenFailed<'a> {
    pub instance: &'a InstanceId,
    pub error: &'a str,
    pub news: bool,
}

impl Event for TokenFailed<'_> {
    fn emit(&self, metrics: &Metrics) {
        metrics.token_failures.get_or_create(&self.instance.into()).inc();
        if self.news {
            error!(instance = %self.instance, error = self.error, "no token, so the agent cannot log in; the database is not at fault");
        }
    }
}

/// The role or the status of an instance changed.
///
/// Do: for the writer: wait for the failover, or look at the database.
#[derive(Debug)]
pub struct InstanceChanged<'a> {
    pub instance: &'a InstanceId,
    pub before: Option<&'a InstanceView>,
    pub now: &'a InstanceView,
}

impl Event for InstanceChanged<'_> {
    fn emit(&self, _: &Metrics) {
        if self.before.is_none() && self.now.status == Status::Unknown && self.now.last_fault.is_none() {
            return;
        }
        let lost = self.before.is_some_and(InstanceView::usable) && !self.now.usable();
        let was_writer = self.before.is_some_and(|view| view.role == Some(Role::Writer));
        if lost && was_writer {
            let error = self.now.last_fault.as_ref().map(ToString::to_string);
            warn!(instance = %self.instance, status = %Word::of(&self.now.status), error, "the writer does not answer");
            return;
        }
        info!(
            instance = %self.instance,
            role_before = self.before.and_then(|view| view.role).map(|role| display(Word::of(&role))),
            role = self.now.role.map(|role| display(Word::of(&role))),
            status_before = self.before.map(|view| display(Word::of(&view.status))),
            status = %Word::of(&self.now.status),
            auth_refused = self.now.auth_refused_since.is_some(),
            host_blocked = self.now.host_blocked_since.is_some(),
            error = self.now.last_fault.as_ref().map(ToString::to_string),
            "instance changed"
        );
    }
}

/// An instance refuses the agent and serves clients.
///
/// Do: check the security group, the route and the firewall of this host.
#[derive(Debug)]
pub struct RefusedAlone<'a> {
    pub instance: &'a InstanceId,
}

impl Event for RefusedAlone<'_> {
    fn emit(&self, _: &Metrics) {
        warn!(
            instance = %self.instance,
            "connections are refused for the agent and served for clients; check the path from the agent's host \
             to the database (security group, route, firewall)"
        );
    }
}

/// An operator has named the writer among several claimants, to this agent or to another one of the database.
#[derive(Debug)]
pub struct WriterChosen<'a> {
    pub instance: &'a InstanceId,
    pub by_peer: bool,
}

impl Event for WriterChosen<'_> {
    fn emit(&self, _: &Metrics) {
        let to = if self.by_peer { "another_agent" } else { "this_agent" };
        info!(instance = %self.instance, to, "an operator has named the writer");
    }
}

/// Two instances claim to be the writer, and no evidence decides between them.
///
/// Do: name the writer with `rds-lb-agent writer DATABASE INSTANCE`.
#[derive(Debug)]
pub struct Conflict<'a> {
    pub instance: &'a InstanceId,
}

impl Event for Conflict<'_> {
    fn emit(&self, _: &Metrics) {
        error!(instance = %self.instance, "two instances claim to be the writer; the last known writer is kept");
    }
}

/// The state of a server's verdict changed.
#[derive(Debug)]
pub struct VerdictChanged<'a> {
    pub server: &'a ServerId,
    pub before: Option<Verdict>,
    pub now: Verdict,
    /// Routing is only observed: no proxy gets it.
    pub observed: bool,
}

impl Event for VerdictChanged<'_> {
    fn emit(&self, metrics: &Metrics) {
        for state in [State::Up, State::Drain, State::Down, State::Unknown] {
            let labels = OfState::new(self.server, &state);
            metrics.verdict.get_or_create(&labels).set((state == self.now.state).into());
        }
        // A server of which nothing is known yet is no news.
        if self.before.map_or(State::Unknown, |verdict| verdict.state) == self.now.state {
            return;
        }
        let (server, why) = (self.server, self.now.reason);
        let reason = Word::of(&why);
        let before = self.before.map(|verdict| tracing::field::display(Word::of(&verdict.state)));
        let state = Word::of(&self.now.state);
        if self.observed {
            let labels = OfState::new(server, &self.now.state);
            metrics.verdicts_observed.get_or_create(&labels).inc();
            info!(%server, before, %state, %reason, %why, "verdict changed; the proxy does not get it (routing: observe)");
        } else {
            info!(%server, before, %state, %reason, %why, "verdict changed");
        }
    }
}
