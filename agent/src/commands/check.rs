//! `check`: one login to each instance, as the health check does it. Not as HAProxy's external check:
//! that is in [`external`](super::external).

use std::time::{Duration, Instant};

use agent_aws::{
    Region,
    credentials::{ChainOptions, CredentialChain},
    source::TokenSource,
};
use agent_core::{Evidence, Fault, FaultKind, Phase, health::RoleFacts};
use agent_database::{Limits, LoginReport, TlsTrust};
use serde::Serialize;

use super::{Exit, complain, print, print_json};
use crate::{
    cli::{Check, Format, Role},
    config::{self, Database, Instance},
    engine,
};

#[derive(Serialize)]
pub(super) struct Finding {
    instance: String,
    pub(super) ok: bool,
    role: Option<&'static str>,
    total_ms: f64,
    report: LoginReport,
    pub(super) fault: Option<Fault>,
    advice: Option<&'static str>,
    #[serde(skip)]
    exit: Exit,
}

pub(super) async fn check(arguments: &Check) -> Exit {
    let config = match config::load(&arguments.config.config) {
        Ok(loaded) => loaded.config,
        Err(problems) => {
            eprint!("{problems}");
            return Exit::Usage;
        }
    };
    let wanted: Vec<(&Database, &Instance)> = config
        .instances()
        .filter(|(_, instance)| {
            arguments.instance.as_ref().is_none_or(|name| *name == instance.id().to_string())
        })
        .collect();
    if wanted.is_empty() {
        let known: Vec<String> = config.instances().map(|(_, instance)| instance.id().to_string()).collect();
        complain(format_args!("--instance: there is no such instance; there are {}", known.join(", ")));
        return Exit::Usage;
    }
    let chain = CredentialChain::standard(ChainOptions::patient());
    let mut findings = Vec::new();
    for (database, instance) in wanted {
        findings.push(one(database, instance, &chain, arguments.role).await);
    }
    match arguments.output.output {
        Format::Json => print_json(&findings),
        Format::Text => findings.iter().for_each(show),
    }
    let worst = |exit: Exit| findings.iter().any(|finding| finding.exit == exit);
    [Exit::Problem, Exit::CouldNotCheck].into_iter().find(|exit| worst(*exit)).unwrap_or(Exit::Ok)
}

pub(super) async fn one(
    database: &Database,
    instance: &Instance,
    chain: &CredentialChain,
    wanted: Role,
) -> Finding {
    let began = Instant::now();
    let (result, report) = log_in(database, instance, chain).await;
    let took: Duration = began.elapsed();
    let mut finding = Finding {
        instance: instance.id().to_string(),
        ok: false,
        role: None,
        total_ms: took.as_secs_f64() * 1e3,
        report,
        fault: None,
        advice: None,
        exit: Exit::Problem,
    };
    match result {
        Ok(facts) => {
            let writer = facts.claims_writer();
            finding.role = Some(if writer { "writer" } else { "reader" });
            finding.ok = match wanted {
                Role::Writer => writer,
                Role::Reader => !writer,
                Role::Any => true,
            };
            finding.exit = if finding.ok { Exit::Ok } else { Exit::Problem };
            finding.advice = (!finding.ok).then_some("it answers, and has the other role");
        }
        Err(fault) => {
            finding.exit = if fault.evidence() == Evidence::Nothing || fault.kind == FaultKind::NoToken {
                Exit::CouldNotCheck
            } else {
                Exit::Problem
            };
            finding.advice = Some(advice(&fault));
            finding.fault = Some(fault);
        }
    }
    finding
}

async fn log_in(
    database: &Database,
    instance: &Instance,
    chain: &CredentialChain,
) -> (Result<RoleFacts, Fault>, LoginReport) {
    let nothing = |fault| (Err(fault), LoginReport::default());
    let no_token = |error: String| Fault::new(Phase::Login, FaultKind::NoToken, error);
    let region = match &instance.region {
        Some(region) => Region::parse(region).ok(),
        None => chain.region().await,
    };
    let Some(region) = region else {
        return nothing(no_token("no region is known: set `region`, or AWS_REGION".into()));
    };
    let target = &instance.target;
    let token =
        match agent_aws::Target::new(&target.endpoint.host, target.endpoint.port, &target.user, region) {
            Ok(signed) => {
                TokenSource::start(chain.clone(), signed).token().await.map_err(|error| error.to_string())
            }
            Err(error) => Err(error.to_string()),
        };
    let token = match token {
        Ok(token) => token,
        Err(error) => return nothing(no_token(error)),
    };
    let trust = match TlsTrust::load(database.trust.clone()) {
        Ok(trust) => trust,
        Err(error) => {
            return nothing(Fault::new(Phase::Tls, FaultKind::CertificateInvalid, error.to_string()));
        }
    };
    let (session, report) =
        engine::of(database).login(target, &trust, token.expose_secret(), &Limits::default()).await;
    let mut session = match session {
        Ok(session) => session,
        Err(fault) => return (Err(fault), report),
    };
    let role = session.role().await;
    session.close().await;
    (role, report)
}

/// What to look at first.
fn advice(fault: &Fault) -> &'static str {
    match fault.kind {
        FaultKind::NameNotResolved => "does this host resolve the name? is it the RDS endpoint?",
        FaultKind::ConnectionRefused => "is the instance running, and is this its port?",
        FaultKind::Unreachable | FaultKind::TimedOut => {
            "security group, network ACL, route: can this host reach the port?"
        }
        FaultKind::OutOfResources => "this host is out of files or memory: ulimit -n, LimitNOFILE",
        FaultKind::Disconnected => {
            "something between ends the connection: a proxy, or the instance restarting"
        }
        FaultKind::TlsNotOffered => "is this really the database, and not a proxy that ends TLS?",
        FaultKind::TlsFailed => "which TLS versions does the parameter group allow?",
        FaultKind::CertificateInvalid => "is `endpoint` the RDS name, and is the CA bundle current?",
        FaultKind::NoToken => "which AWS credentials does this host have?",
        FaultKind::LoginRefused => {
            "does the user log in by IAM (rds_iam, AWSAuthenticationPlugin), does the policy allow rds-db:connect for it, is this host's clock right?"
        }
        FaultKind::StartingUp => "it is starting or stopping",
        FaultKind::TooManyConnections => "max_connections is reached",
        FaultKind::HostBlocked => {
            "the database blocks this host's address: too many connections were cut off"
        }
        FaultKind::PermissionDenied => "a right is missing at the database",
        FaultKind::OverBudget | FaultKind::DatabaseError | FaultKind::Protocol => "see the message",
    }
}

pub(super) fn show(finding: &Finding) {
    let state = if finding.ok { "ok" } else { "FAILED" };
    print(format_args!(
        "{}: {state} {} {:.0} ms",
        finding.instance,
        finding.role.unwrap_or("-"),
        finding.total_ms
    ));
    let phases = &finding.report.phases;
    for (phase, took) in
        [("dns", phases.dns), ("tcp", phases.tcp), ("tls", phases.tls), ("login", phases.login)]
    {
        if let Some(took) = took {
            print(format_args!("  {phase:<6} {:.1} ms", took.as_secs_f64() * 1e3));
        }
    }
    if let Some(tls) = &finding.report.tls {
        print(format_args!("  {} {}", tls.version, tls.cipher));
    }
    if let Some(fault) = &finding.fault {
        print(format_args!("  {fault}"));
    }
    if let Some(advice) = finding.advice {
        print(format_args!("  hint: {advice}"));
    }
}
