//! The one way to log in to an instance: a place in the budget, a token, the
//! login, and its report to everybody who wants to know.

use std::{
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use agent_aws::{TokenSource, source::Proof};
use agent_core::{Fault, FaultKind, InstanceId, Phase, health::Observation, plan::Purpose};
use agent_database::{Engine, Limits, LoginReport, Session, Target, TlsTrust};
use tokio::time::{Instant, sleep_until};

use super::unfinished::Unfinished;
use crate::{
    events::{Episodes, Event, LoginFailed, LoginWorks, TokenFailed},
    messages::Input,
    shared::{Place, Shared},
};

/// The way into one instance.
pub struct Door {
    /// Which instance, under which names.
    pub target: Target,
    /// Its kind of database.
    pub engine: Arc<dyn Engine>,
    /// Who is trusted to be it.
    pub trust: Arc<TlsTrust>,
    /// Tokens for it.
    pub tokens: Arc<TokenSource>,
    /// How long each step may take.
    pub limits: Limits,
    /// What all tasks share.
    pub shared: Shared,
    /// Troubles that have been told.
    pub episodes: Mutex<Episodes>,
    /// Logins that were not finished, where the server blocks addresses for too many.
    pub unfinished: Option<Mutex<Unfinished>>,
}

/// Whoever waits for a turn looks so often whether somebody else got through.
const LOOK: Duration = Duration::from_secs(1);

impl Door {
    /// Which instance.
    pub fn instance(&self) -> &InstanceId {
        &self.target.instance
    }

    /// Logs in and asks for the role. Both a success and a failure are told to
    /// the decider as a probe, of the moment before it was asked: an answer that waited
    /// while the agent was stopped is as old as its question.
    ///
    /// # Errors
    /// What went wrong; it has been logged and told already.
    pub async fn login(&self) -> Result<Box<dyn Session>, Fault> {
        self.turn().await;
        let place = self.place().await;
        let mut at = self.shared.clock.now();
        let result = self.attempt().await;
        drop(place);
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
        let observation = Observation { instance: self.instance().clone(), at, login: true, result };
        self.shared.tell(Input::Health(observation)).await;
        session
    }

    /// Logs in from one address of this host's, with the token that is in use. Nothing is told
    /// of health: that is seen from wherever the agent's logins come from by themselves.
    ///
    /// # Errors
    /// What went wrong; nobody has been told.
    pub async fn login_from(&self, source: IpAddr) -> Result<Box<dyn Session>, Fault> {
        self.turn().await;
        let place = self.place().await;
        let token = self.tokens.token().await;
        let token = token.map_err(|error| Fault::new(Phase::Login, FaultKind::NoToken, error.to_string()))?;
        let target = self.target.clone().dialled_from(source);
        let (session, _) = self.engine.login(&target, &self.trust, token.expose_secret(), &self.limits).await;
        drop(place);
        if let Err(fault) = &session {
            self.ended(Some(fault));
        }
        session
    }

    /// Waits until one more login that may not be finished does no harm.
    async fn turn(&self) {
        let Some(unfinished) = &self.unfinished else { return };
        loop {
            let now = Instant::now();
            let turn = unfinished.lock().unwrap_or_else(PoisonError::into_inner).turn(now);
            match turn {
                Ok(()) => return,
                Err(due) => sleep_until(due.min(now + LOOK)).await,
            }
        }
    }

    /// Learns how many logins that are not finished block this address.
    pub fn limited(&self, limit: u64) {
        if let Some(unfinished) = &self.unfinished {
            unfinished.lock().unwrap_or_else(PoisonError::into_inner).limited(limit);
        }
    }

    /// Remembers how a login ended, as far as the server counts it.
    fn ended(&self, fault: Option<&Fault>) {
        let Some(unfinished) = &self.unfinished else { return };
        let mut unfinished = unfinished.lock().unwrap_or_else(PoisonError::into_inner);
        match fault {
            None => unfinished.finished(Instant::now()),
            Some(fault) => unfinished.failed(fault, Instant::now()),
        }
    }

    /// Waits for a place in the login budget.
    async fn place(&self) -> Place {
        loop {
            if let Some(place) = self.shared.place(self.instance(), Purpose::Login) {
                return place;
            }
            let now = self.shared.clock.now();
            let free = self.shared.budget.lock().next_free(self.instance(), Purpose::Login, now);
            sleep_until(self.shared.clock.instant(free)).await;
        }
    }

    async fn attempt(&self) -> Result<Box<dyn Session>, Fault> {
        // A new token is proved by the login that would be made anyway.
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
        match &result {
            Ok(_) => {
                self.tokens.report(&token, Proof::Accepted);
                self.worked(&report);
            }
            Err(fault) => {
                if fault.kind == FaultKind::LoginRefused {
                    self.tokens.report(&token, Proof::Refused);
                }
                self.failed(fault, &report, &token);
            }
        }
        let told = Input::Login(self.instance().clone(), Box::new(report));
        self.shared.tell(told).await;
        result
    }

    fn without_token(&self, error: String) -> Fault {
        let news = self.begins("no token");
        TokenFailed { instance: self.instance(), error: &error, news }.emit(&self.shared.metrics);
        Fault::new(Phase::Login, FaultKind::NoToken, error)
    }

    fn worked(&self, report: &LoginReport) {
        let news = self.episodes.lock().unwrap_or_else(PoisonError::into_inner).ends("login");
        LoginWorks { instance: self.instance(), user: &self.target.user, report, news }
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

    fn begins(&self, trouble: &str) -> bool {
        self.episodes.lock().unwrap_or_else(PoisonError::into_inner).begins("login", trouble)
    }
}
