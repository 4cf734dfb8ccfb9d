//! A database, and what its instances say.

use std::{collections::BTreeMap, time::Duration};

use agent_core::{
    Fault, FaultKind, InstanceId, Phase, ProxyIndex, ServerId, Time,
    health::{
        Admission, Fleet, FleetConfig, Health, HealthRules, Observation, ProxyView, Remembered, RoleFacts,
        Routing, ServerConfig, State, VerdictReason as Reason, WantedRole,
    },
};

/// A database of instances `a`, `b`, `c`, each a server of a writer and of a reader backend.
pub struct Setup {
    pub health: Health,
    pub now: Time,
}

pub fn instance(name: &str) -> InstanceId {
    InstanceId::new("orders", name)
}

pub fn setup_with(names: &[&str], rules: &HealthRules, remembered: &[Remembered]) -> Setup {
    setup_routing(Routing::Act, names, rules, remembered)
}

pub fn setup_routing(
    routing: Routing,
    names: &[&str],
    rules: &HealthRules,
    remembered: &[Remembered],
) -> Setup {
    let server = |backend: &str, name: &str, wanted| ServerConfig {
        id: ServerId::new(ProxyIndex(0), backend, name),
        instance: instance(name),
        wanted,
        commandable: true,
    };
    let backends = [("write", WantedRole::Writer), ("read", WantedRole::Reader), ("any", WantedRole::Any)];
    let servers = names
        .iter()
        .flat_map(|name| backends.map(|(backend, wanted)| server(backend, name, wanted)))
        .collect();
    let instances = names.iter().map(|name| (instance(name), rules.clone())).collect();
    let now = Time::AGENT_START + Duration::from_secs(60);
    let mut setup =
        Setup { health: Health::new(FleetConfig { instances, servers, routing }, remembered), now };
    setup.closed(&[]);
    let fallbacks = backends.map(|(backend, _)| backend.into()).into();
    setup.health.observe_proxy(ProxyIndex(0), now, ProxyView { fallbacks, ..ProxyView::default() });
    setup
}

pub fn setup(names: &[&str]) -> Setup {
    setup_with(names, &HealthRules::default(), &[])
}

pub fn role(in_recovery: bool, timeline: Option<u32>) -> RoleFacts {
    RoleFacts { in_recovery, read_only: false, follows_source: false, timeline, lag: None, agents: 1 }
}

impl Setup {
    pub fn wait(&mut self, millis: u64) -> &mut Self {
        self.now = self.now + Duration::from_millis(millis);
        self
    }

    pub fn tell(&mut self, name: &str, login: bool, result: Result<RoleFacts, Fault>) -> &mut Self {
        self.wait(1);
        let observation = Observation { instance: instance(name), at: self.now, login, result };
        self.health.observe(&observation);
        // The agent decides after each observation.
        self.fleet();
        self
    }

    pub fn writer(&mut self, name: &str) -> &mut Self {
        self.tell(name, true, Ok(role(false, None)))
    }

    pub fn writer_on(&mut self, name: &str, timeline: u32) -> &mut Self {
        self.tell(name, true, Ok(role(false, Some(timeline))))
    }

    pub fn reader(&mut self, name: &str) -> &mut Self {
        self.tell(name, true, Ok(role(true, None)))
    }

    pub fn lagging(&mut self, name: &str, seconds: u64) -> &mut Self {
        let facts = RoleFacts { lag: Some(Duration::from_secs(seconds)), ..role(true, None) };
        self.tell(name, true, Ok(facts))
    }

    pub fn alive(&mut self, name: &str, in_recovery: bool) -> &mut Self {
        self.tell(name, false, Ok(role(in_recovery, None)))
    }

    pub fn login_fails(&mut self, name: &str, phase: Phase, kind: FaultKind) -> &mut Self {
        self.tell(name, true, Err(Fault::new(phase, kind, "for the test")))
    }

    pub fn refuses_connections(&mut self, name: &str) -> &mut Self {
        for _ in 0..2 {
            self.wait(250).login_fails(name, Phase::Tcp, FaultKind::ConnectionRefused);
        }
        self
    }

    pub fn refuses_login(&mut self, name: &str) -> &mut Self {
        self.login_fails(name, Phase::Login, FaultKind::LoginRefused)
    }

    /// Twice, some seconds apart.
    pub fn refuses_logins(&mut self, name: &str) -> &mut Self {
        self.refuses_login(name).wait(5_000).refuses_login(name)
    }

    pub fn has_no_token(&mut self, name: &str) -> &mut Self {
        self.login_fails(name, Phase::Login, FaultKind::NoToken)
    }

    /// An operator has closed these servers and no others.
    pub fn closed(&mut self, servers: &[(&str, &str)]) -> &mut Self {
        let admission = |backend: &str, name: &str| {
            if servers.contains(&(backend, name)) { Admission::Closed } else { Admission::Open }
        };
        let all = ["write", "read", "any"].into_iter().flat_map(|backend| {
            ["a", "b", "c"]
                .map(|name| (ServerId::new(ProxyIndex(0), backend, name), admission(backend, name)))
        });
        self.health.observe_admissions(all.collect());
        self
    }

    /// The proxy's state cannot be read.
    pub fn unseen(&mut self) -> &mut Self {
        self.health.observe_admissions(BTreeMap::new());
        self
    }

    /// No backend has a fallback.
    pub fn without_fallback(&mut self) -> &mut Self {
        self.health.observe_proxy(ProxyIndex(0), self.now, ProxyView::default());
        self
    }

    pub fn silent(&mut self, name: &str, times: u32) -> &mut Self {
        for _ in 0..times {
            let fault = Fault::new(Phase::Query, FaultKind::TimedOut, "for the test");
            self.wait(1_000).tell(name, false, Err(fault));
        }
        self
    }

    pub fn fleet(&mut self) -> Fleet {
        self.health.fleet(self.now)
    }

    #[track_caller]
    pub fn expect(&mut self, backend: &str, name: &str, state: State, reason: Reason) -> &mut Self {
        let verdict = self.fleet().servers.get(&ServerId::new(ProxyIndex(0), backend, name)).copied();
        let said = verdict.map(|verdict| (verdict.state, verdict.reason));
        assert_eq!(said, Some((state, reason)), "{backend}/{name}");
        self
    }
}
