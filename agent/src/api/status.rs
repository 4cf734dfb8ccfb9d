//! The documented view of the state, from the snapshot.

use std::{sync::Arc, time::Duration};

use agent_core::{
    InstanceId, ServerId, Time,
    freshness::SOURCE_LOST,
    health::{AddressState, InstanceView, Verdict},
    plan::{DrainPhase, DrainReason, Mode, Shortage},
    topology::Member,
};
use agent_database::{Lacks, Rights};
use jiff::{SignedDuration, Timestamp};
use tokio::sync::watch;

use crate::{
    clock::Clock,
    events::{Recent, UnknownNames},
    hand_offs::HandOffs,
    metrics::{Metrics, labels::Word},
    proxies::envoy::discovery::Envoys,
    seen::ShownState,
    shared::{Topologies, TopologySeen},
    snapshot::{Disagreement, Snapshot},
    status::{
        AgentStatus, DifferenceStatus, DisagreementStatus, DrainStatus, InstanceStatus, MissingStatus,
        PauseStatus, ProxyStatus, SCHEMA_VERSION, ServerStatus, SessionsStatus, ShortageStatus, Status,
        TopologyMember, TopologyStatus,
    },
};

/// What answers are made from.
#[derive(Clone, Debug)]
pub struct Source {
    pub snapshot: watch::Receiver<Arc<Snapshot>>,
    pub metrics: Arc<Metrics>,
    pub clock: Clock,
    pub envoys: Envoys,
    pub unknown: Arc<UnknownNames>,
    pub recent: Recent,
    pub hand_offs: HandOffs,
    pub topologies: Topologies,
}

/// Log lines in the view.
const EVENTS: usize = 20;

/// What a view is made of.
struct View<'a> {
    source: &'a Source,
    snapshot: &'a Snapshot,
    now: Time,
    wall: Timestamp,
}

pub fn status(source: &Source) -> Status {
    let snapshot = source.snapshot.borrow().clone();
    View { source, snapshot: &snapshot, now: source.clock.now(), wall: Timestamp::now() }.status()
}

impl View<'_> {
    fn status(&self) -> Status {
        let Snapshot { setup, sessions, .. } = self.snapshot;
        Status {
            schema_version: SCHEMA_VERSION,
            agent: AgentStatus {
                version: env!("CARGO_PKG_VERSION").to_owned(),
                pid: std::process::id(),
                started: self.at(Time::AGENT_START),
                decided: self.at(self.snapshot.at),
                decided_age_s: self.now.since(self.snapshot.at).as_secs_f64(),
            },
            mode: word(&setup.mode),
            routing: word(&setup.routing),
            max_age_s: setup.max_age.as_secs_f64(),
            paused: self.snapshot.paused.as_ref().map(|pause| PauseStatus {
                since: unix(pause.since),
                by: pause.by.clone(),
                reason: pause.reason.clone(),
            }),
            paused_groups: self.snapshot.paused_groups.clone(),
            instances: self
                .snapshot
                .fleet
                .instances
                .iter()
                .map(|(id, view)| self.instance(id, view))
                .collect(),
            proxies: self.proxies(),
            servers: self.servers(),
            sessions: SessionsStatus {
                known: sessions.known,
                due: sessions.due,
                oldest_s: (sessions.oldest_s > 0.0).then_some(sessions.oldest_s),
                retired: sessions.retired,
                held: sessions.holds.iter().map(|(reason, count)| (word(reason), *count)).collect(),
                shortages: sessions.shortages.iter().map(shortage).collect(),
            },
            drains: self.drains(),
            disagreements: self.disagreements(),
            differences: self.differences(),
            topologies: self.topologies(),
            events: self.source.recent.last(EVENTS, |_| true),
        }
    }

    fn topologies(&self) -> Vec<TopologyStatus> {
        let member = |member: Member| TopologyMember {
            identifier: member.identifier,
            status: member.status,
            endpoint: member.endpoint.map(|(host, port)| format!("{host}:{port}")),
            writer: member.writer,
        };
        let status = |(database, seen): (String, TopologySeen)| TopologyStatus {
            database,
            asked: seen.asked,
            answered: seen.answered.map(|at| self.at(at)),
            answered_age_s: seen.answered.map(|at| self.now.since(at).as_secs_f64()),
            error: seen.error,
            differences: seen.comparison.lasting().map(ToString::to_string).collect(),
            members: seen.members.into_iter().map(member).collect(),
        };
        self.source.topologies.all().into_iter().map(status).collect()
    }

    /// A moment of the agent's clock as RFC 3339.
    fn at(&self, at: Time) -> String {
        let (past, ahead) = (self.now.since(at), at.since(self.now));
        let signed = |duration: Duration| SignedDuration::try_from(duration).unwrap_or(SignedDuration::MAX);
        let moment = self.wall.checked_sub(signed(past)).and_then(|at| at.checked_add(signed(ahead)));
        rfc3339(moment.unwrap_or(self.wall))
    }

    fn instance(&self, id: &InstanceId, view: &InstanceView) -> InstanceStatus {
        let name = id.to_string();
        let expires = |seconds: Option<i64>| {
            let at = Timestamp::from_second(seconds?).ok()?;
            Some((rfc3339(at), (at.as_second() - self.wall.as_second()) as f64))
        };
        let metrics = &self.source.metrics;
        let token = expires(metrics.token_expires.get(&id.into()).map(|gauge| gauge.get())).unzip();
        let certificate =
            expires(metrics.certificate_expires.get(&id.into()).map(|gauge| gauge.get())).unzip();
        let lost = self.snapshot.lost.get(&name);
        InstanceStatus {
            role: view.role.map(|role| word(&role)),
            status: word(&view.status),
            last_login: view.last_login.map(|at| self.at(at)),
            last_login_age_s: view.last_login.map(|at| self.now.since(at).as_secs_f64()),
            login_failed_since: view.login_failed_since.map(|at| self.at(at)),
            fault: view.last_fault.as_ref().map(ToString::to_string),
            lag_s: view.lag.map(|lag| lag.as_secs_f64()),
            token_expires: token.0,
            token_expires_in_s: token.1,
            certificate_expires: certificate.0,
            certificate_expires_in_s: certificate.1,
            lost: lost.into_iter().flatten().map(|(source, _)| word(source)).collect(),
            refusal: view.refusal.map(|refusal| word(&refusal)),
            missing: self.snapshot.rights.get(&name).map(|rights| self.missing(rights)).unwrap_or_default(),
            agents: self.snapshot.peers.get(&name).map(|seen| seen.look.peers + 1),
            shared_permits: self.snapshot.peers.get(&name).map(|seen| seen.look.permits),
            instance: name,
        }
    }

    fn disagreements(&self) -> Vec<DisagreementStatus> {
        let all = self.snapshot.disagreements.iter().cloned();
        all.map(|Disagreement { database, own, others }| DisagreementStatus { database, own, others })
            .collect()
    }

    /// What sessions are closed with is of no interest where none is closed.
    fn missing(&self, rights: &Rights) -> Vec<MissingStatus> {
        let closing = self.snapshot.setup.mode != Mode::Observe;
        let wanted = rights.missing.iter().filter(|missing| closing || missing.lacks != Lacks::Closing);
        wanted
            .map(|missing| MissingStatus { lacks: word(&missing.lacks), advice: missing.advice.to_owned() })
            .collect()
    }

    fn proxies(&self) -> Vec<ProxyStatus> {
        let status = |proxy: &crate::snapshot::ProxySetup| {
            let table = self.snapshot.tables.get(&proxy.name);
            let answers = match &proxy.envoy {
                Some(node) => self.source.envoys.connected(node.as_deref()),
                None => table.is_some_and(|table| self.now.since(table.at) <= SOURCE_LOST),
            };
            ProxyStatus {
                proxy: proxy.name.clone(),
                kind: if proxy.envoy.is_some() { "envoy" } else { "haproxy" }.to_owned(),
                version: table.map(|table| table.version.clone()),
                answers,
            }
        };
        self.snapshot.setup.proxies.iter().map(status).collect()
    }

    fn servers(&self) -> Vec<ServerStatus> {
        let verdicts = self.snapshot.fleet.verdicts();
        let status = |proxy: &str, server: &agent_core::health::ServerConfig| {
            let name = server.id.to_string();
            let Verdict { state, reason, since } = verdicts.get(&server.id)?;
            let table = self.snapshot.tables.get(proxy);
            Some(ServerStatus {
                shown: table.and_then(|table| table.servers.get(&name).cloned()),
                server: name,
                proxy: proxy.to_owned(),
                instance: server.instance.to_string(),
                wanted: word(&server.wanted),
                verdict: word(state),
                reason: word(reason),
                why: reason.to_string(),
                changes: reason.what_changes_it().to_owned(),
                since: self.at(*since),
            })
        };
        let proxies = self.snapshot.setup.proxies.iter();
        proxies
            .flat_map(|proxy| proxy.servers.iter().filter_map(|server| status(&proxy.name, server)))
            .collect()
    }

    fn drains(&self) -> Vec<DrainStatus> {
        let until = |server: &str| self.snapshot.until.get(server).map(|at| self.at(*at));
        let own = self.snapshot.drains.iter().filter_map(|(server, phase)| {
            let (phase, since, reason) = match phase {
                DrainPhase::Idle => return None,
                DrainPhase::Sending { since, reason } => ("sending", since, Some(reason)),
                DrainPhase::Held { since, reason, .. } => ("in_force", since, Some(reason)),
                DrainPhase::Undoing { since, .. } => ("undoing", since, None),
            };
            let by = if reason == Some(&DrainReason::Operator) { "operator" } else { "agent" };
            Some(DrainStatus {
                server: server.clone(),
                by: by.to_owned(),
                phase: phase.to_owned(),
                reason: reason.map(word),
                since: Some(self.at(*since)),
                until: until(server),
            })
        });
        let shown = self.snapshot.tables.values().flat_map(|table| &table.servers);
        let others = shown
            .filter(|(server, shown)| {
                shown.state == ShownState::Drain && !self.snapshot.drains.contains_key(*server)
            })
            .map(|(server, _)| DrainStatus {
                server: server.clone(),
                by: "proxy".to_owned(),
                phase: "in_force".to_owned(),
                reason: None,
                since: None,
                until: None,
            });
        own.chain(others).collect()
    }

    fn differences(&self) -> Vec<DifferenceStatus> {
        let of_tables = self.snapshot.tables.iter().flat_map(|(proxy, table)| {
            table.differences.iter().map(|difference| DifferenceStatus {
                proxy: proxy.clone(),
                message: difference.to_string(),
                difference: Some(difference.clone()),
            })
        });
        let addresses = self.snapshot.fleet.addresses.iter();
        let of_addresses =
            addresses.filter(|(_, view)| view.state != AddressState::Proved).map(|(server, view)| {
                DifferenceStatus {
                    proxy: self.proxy_of(server),
                    message: format!("HAProxy dials {} for {server}: {}", view.dialled, meaning(view.state)),
                    difference: None,
                }
            });
        of_tables.chain(of_addresses).collect()
    }

    fn proxy_of(&self, server: &ServerId) -> String {
        let proxies = &self.snapshot.setup.proxies;
        let of = proxies.iter().find(|proxy| proxy.servers.iter().any(|known| known.id == *server));
        of.map(|proxy| proxy.name.clone()).unwrap_or_default()
    }
}

fn shortage(shortage: &Shortage) -> ShortageStatus {
    ShortageStatus {
        instance: shortage.instance.to_string(),
        sessions: shortage.sessions,
        needed_per_s: shortage.needed_per_s,
        allowed_per_s: shortage.allowed_per_s,
        login_budget: shortage.login_budget,
    }
}

fn meaning(state: AddressState) -> &'static str {
    match state {
        AddressState::Proved => "the agent logs in there",
        AddressState::OtherInstance => "the address of another instance",
        AddressState::Unproved => "no login has proved the address",
        AddressState::Dead => "the address accepts no connections",
    }
}

/// The name of a variant, in snake_case.
fn word(value: &impl serde::Serialize) -> String {
    Word::of(value).to_string()
}

fn unix(seconds: u64) -> String {
    let at = i64::try_from(seconds).ok().and_then(|seconds| Timestamp::from_second(seconds).ok());
    rfc3339(at.unwrap_or(Timestamp::UNIX_EPOCH))
}

/// In whole seconds.
fn rfc3339(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}
