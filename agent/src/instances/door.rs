//! How all tasks log in to an instance: a permit of the login budget, a token, the login, and the report
//! of its result.

use std::{
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use agent_aws::{TokenSource, source::Proof};
use agent_core::{
    Fault, FaultKind, InstanceId, Phase,
    health::{AddressLogin, Observation, Source},
    plan::Purpose,
};
use agent_database::{Address, Engine, Limits, LoginReport, Session, Target, TlsTrust};
use tokio::{
    sync::Notify,
    time::{Instant, sleep_until},
};

use super::unfinished::Unfinished;
use crate::{
    events::{Episodes, Event, LoginFailed, LoginWorks, SourceChanged, TokenFailed},
    hand_offs::OwnLogin,
    messages::Input,
    shared::{Permit, Shared},
    starvation::Wait,
};

/// Logs in to one instance.
pub struct Door {
    pub target: Target,
    pub engine: Arc<dyn Engine>,
    pub trust: Arc<TlsTrust>,
    pub tokens: Arc<TokenSource>,
    pub limits: Limits,
    pub shared: Shared,
    /// Asks the probes of this database to run now.
    pub probe_now: Arc<Notify>,
    /// Failures that were logged.
    pub episodes: Mutex<Episodes>,
    /// Unfinished logins, for servers that block addresses after too many.
    pub unfinished: Option<Mutex<Unfinished>>,
}

/// How often a login that waits its turn checks whether another one has succeeded.
const RECHECK: Duration = Duration::from_secs(1);

impl Door {
    pub fn instance(&self) -> &InstanceId {
        &self.target.instance
    }

    /// Logs in and queries the role. The result is sent to the decider as a probe, with the time of the
    /// query: if the process is stopped meanwhile, the answer is as old as its query.
    ///
    /// # Errors
    /// The fault, which has been logged and sent to the decider.
    pub async fn login(&self) -> Result<Box<dyn Session>, Fault> {
        self.turn().await;
        let permit = self.permit().await;
        let mut at = self.shared.clock.now();
        let wait = self.shared.starvation.begin();
        let result = self.attempt().await;
        match &result {
            // Nothing reached the database that could count as a login.
            Err(fault) if fault.phase <= Phase::Tcp => permit.cancel(),
            _ => drop(permit),
        }
        let (session, result) = match result {
            Ok(mut session) => {
                at = self.shared.clock.now();
                match session.role().await {
                    Ok(facts) => (Ok(session), Ok(facts)),
                    Err(fault) => (Err(fault.clone()), Err(fault)),
                }
            }
            Err(fault) => (Err(fault.clone()), Err(fault)),
        };
        if session.is_ok() || result.as_ref().is_err_and(|fault| fault.phase == Phase::Query) {
            self.source(Source::Role, result.as_ref().err()).await;
        }
        if !session.as_ref().is_err_and(|fault| self.is_own_delay(fault, wait)) {
            let observation = Observation { instance: self.instance().clone(), at, login: true, result };
            self.shared.send(Input::Health(observation)).await;
        }
        session
    }

    /// Whether a time limit passed because the agent itself had no processor: no evidence against the server.
    pub fn is_own_delay(&self, fault: &Fault, wait: Wait) -> bool {
        fault.kind == FaultKind::TimedOut && self.shared.starvation.spoils(wait)
    }

    /// Reports that a source on the instance is lost, when it begins and whenever the cause changes, or that it
    /// is back.
    pub async fn source(&self, source: Source, lost: Option<&Fault>) {
        let subject = format!("source {source:?}");
        let news = {
            let mut episodes = self.episodes.lock().unwrap_or_else(PoisonError::into_inner);
            match lost {
                Some(fault) => episodes.begins(&subject, &format!("{:?} {:?}", fault.kind, fault.code)),
                None => episodes.ends(&subject),
            }
        };
        if news {
            SourceChanged { instance: self.instance(), source, lost }.emit(&self.shared.metrics);
            let lost = lost.cloned();
            self.shared.send(Input::Source { instance: self.instance().clone(), source, lost }).await;
        }
    }

    /// Logs in from an address of this host, with the token in use. It is not a probe: probes come from
    /// the address that the system chooses.
    ///
    /// # Errors
    /// The fault, which has not been logged.
    pub async fn login_from(&self, source: IpAddr) -> Result<Box<dyn Session>, Fault> {
        self.login_as(&self.target.clone().dialled_from(source)).await
    }

    /// Logs in at an address that a proxy dials, with the token in use, and ends the session. It is not a
    /// probe either.
    ///
    /// # Errors
    /// The fault, which has not been logged.
    pub async fn login_at(&self, address: SocketAddr) -> Result<(), Fault> {
        let connect = Address::new(&address.ip().to_string(), address.port());
        let session = self.login_as(&self.target.clone().dialled_at(connect)).await?;
        session.close().await;
        Ok(())
    }

    async fn login_as(&self, target: &Target) -> Result<Box<dyn Session>, Fault> {
        self.turn().await;
        let permit = self.permit().await;
        let token = self.tokens.token().await;
        let token = token.map_err(|error| Fault::new(Phase::Login, FaultKind::NoToken, error.to_string()))?;
        let (session, _) = self.engine.login(target, &self.trust, token.expose_secret(), &self.limits).await;
        match &session {
            Err(fault) if fault.phase <= Phase::Tcp => permit.cancel(),
            _ => drop(permit),
        }
        if let Err(fault) = &session {
            self.ended(Some(fault));
        }
        session
    }

    /// Waits until another unfinished login would do no harm.
    async fn turn(&self) {
        let Some(unfinished) = &self.unfinished else { return };
        loop {
            let now = Instant::now();
            let turn = unfinished.lock().unwrap_or_else(PoisonError::into_inner).turn(now);
            match turn {
                Ok(()) => return,
                Err(due) => sleep_until(due.min(now + RECHECK)).await,
            }
        }
    }

    /// Sets `max_connect_errors` of the server.
    pub fn set_limit(&self, limit: u64) {
        if let Some(unfinished) = &self.unfinished {
            unfinished.lock().unwrap_or_else(PoisonError::into_inner).set_limit(limit);
        }
    }

    fn ended(&self, fault: Option<&Fault>) {
        let Some(unfinished) = &self.unfinished else { return };
        let mut unfinished = unfinished.lock().unwrap_or_else(PoisonError::into_inner);
        match fault {
            None => unfinished.finished(Instant::now()),
            Some(fault) => unfinished.failed(fault, Instant::now()),
        }
    }

    /// Waits for a permit of the login budget.
    async fn permit(&self) -> Permit {
        loop {
            if let Some(permit) = self.shared.permit(self.instance(), Purpose::Login) {
                return permit;
            }
            let now = self.shared.clock.now();
            let free = self.shared.budget.lock().next_free(self.instance(), Purpose::Login, now);
            sleep_until(self.shared.clock.instant(free)).await;
        }
    }

    async fn attempt(&self) -> Result<Box<dyn Session>, Fault> {
        // A new token is verified by a login that is due anyway.
        let token = match self.tokens.candidate() {
            Some(candidate) => candidate,
            None => match self.tokens.token().await {
                Ok(token) => token,
                Err(error) => return Err(self.without_token(error.to_string())),
            },
        };
        let (result, report) =
            self.engine.login(&self.target, &self.trust, token.expose_secret(), &self.limits).await;
        self.ended(result.as_ref().err());
        self.note(result.as_ref().err(), &report, &token);
        match &result {
            Ok(_) => {
                self.tokens.report(&token, Proof::Accepted);
                self.worked(&report);
                if let Some(address) = report.server_address {
                    let (instance, at) = (self.instance().clone(), self.shared.clock.now());
                    let address = SocketAddr::new(address.ip().to_canonical(), address.port());
                    let login = AddressLogin { instance, address, at, own: true, result: Ok(()) };
                    self.shared.send(Input::Address(login)).await;
                }
            }
            Err(fault) => {
                if fault.kind == FaultKind::LoginRefused {
                    self.tokens.report(&token, Proof::Refused);
                }
                self.failed(fault, &report, &token);
            }
        }
        let report = Input::Login(self.instance().clone(), Box::new(report));
        self.shared.send(report).await;
        result
    }

    /// Notes how this login went, for sessions of clients that fail at that time. One that did not reach the
    /// database's answer says nothing about theirs.
    fn note(&self, fault: Option<&Fault>, report: &LoginReport, token: &agent_aws::Token) {
        let refused = fault.is_some_and(|fault| fault.kind == FaultKind::LoginRefused);
        if fault.is_some() && !refused {
            return;
        }
        let (at, now) = (self.shared.clock.now(), SystemTime::now());
        let tls = report.tls.as_ref();
        let login = OwnLogin {
            at,
            refused,
            signed: now.checked_sub(token.age(now)).unwrap_or(now),
            tls_version: tls.map(|tls| tls.version.clone()),
            tls_cipher: tls.map(|tls| tls.cipher.clone()),
        };
        self.shared.hand_offs.logged_in(self.instance(), login);
    }

    fn without_token(&self, error: String) -> Fault {
        let news = self.begins("no token");
        TokenFailed { instance: self.instance(), error: &error, news }.emit(&self.shared.metrics);
        Fault::new(Phase::Login, FaultKind::NoToken, error)
    }

    fn worked(&self, report: &LoginReport) {
        let after = self.episodes.lock().unwrap_or_else(PoisonError::into_inner).end("login");
        LoginWorks { instance: self.instance(), user: &self.target.user, report, after }
            .emit(&self.shared.metrics);
        if let Some(token) = self.tokens.status().served {
            let expires = SystemTime::now() + token.expires_in;
            if let Ok(since) = expires.duration_since(SystemTime::UNIX_EPOCH) {
                let seconds = i64::try_from(since.as_secs()).unwrap_or(i64::MAX);
                self.shared.metrics.token_expires.get_or_create(&self.instance().into()).set(seconds);
            }
        }
    }

    fn failed(&self, fault: &Fault, report: &LoginReport, token: &agent_aws::Token) {
        let news = self.begins(&format!("{:?} {:?} {:?}", fault.phase, fault.kind, fault.code));
        let now = SystemTime::now();
        LoginFailed {
            instance: self.instance(),
            user: &self.target.user,
            fault,
            report,
            token_age_s: Some(token.age(now).as_secs_f64()),
            token_expires_in_s: Some(token.expires_in(now).as_secs_f64()),
            news,
        }
        .emit(&self.shared.metrics);
    }

    fn begins(&self, failure: &str) -> bool {
        self.episodes.lock().unwrap_or_else(PoisonError::into_inner).begins("login", failure)
    }
}
