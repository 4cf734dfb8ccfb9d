//! The live path: one login to each instance, and through each named port of a proxy. Changes nothing.

use std::{
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use agent_aws::{
    Region, Token,
    credentials::{ChainOptions, CredentialChain},
    source::TokenSource,
};
use agent_core::{Fault, FaultKind, Phase, health::host_block::Counted};
use agent_database::{
    Address, CertificateFacts, Circumstances, Limits, LoginReport, Session, Target, TlsTrust,
};
use doctor::{
    finding::Report,
    live::{self, Failure, Through, Trouble},
};

use crate::{
    config::{Config, Database, Instance},
    engine,
};

/// A port of a proxy, and the database behind it.
#[derive(Clone, Debug)]
pub(super) struct Port {
    pub database: String,
    pub address: Address,
}

pub(super) async fn examine(config: &Config, ports: &[Port], report: &mut Report) {
    let chain = CredentialChain::standard(ChainOptions::patient());
    for database in &config.databases {
        let mut seen = Vec::new();
        for instance in &database.instances {
            report.examined.push(instance.id().to_string());
            seen.push(direct(database, instance, &chain).await);
        }
        for port in ports.iter().filter(|port| port.database == database.name) {
            report.examined.push(port.address.to_string());
            through(database, port, &chain, &mut seen).await;
        }
        report.findings.extend(seen.iter().flat_map(live::check));
    }
}

/// Logs in at the instance's own address and asks for everything that the rules judge.
async fn direct(database: &Database, instance: &Instance, chain: &CredentialChain) -> live::Instance {
    let target = &instance.target;
    let mut seen = live::Instance {
        name: instance.id().to_string(),
        address: target.connect.to_string(),
        ..live::Instance::default()
    };
    let (session, report) = log_in(database, instance, target, chain).await;
    seen.certificate = report.certificate.as_ref().map(identity);
    match session {
        Ok(mut session) => {
            if let Err(fault) = ask(&mut *session, database, &report, &mut seen).await {
                seen.missing.push(fault.to_string());
            }
            session.close().await;
        }
        Err(fault) => seen.failure = Some(failure(&fault)),
    }
    seen
}

async fn ask(
    session: &mut dyn Session,
    database: &Database,
    report: &LoginReport,
    seen: &mut live::Instance,
) -> Result<(), Fault> {
    let before = now_s();
    let Circumstances { clock_s, seen_as, connection_limit, defaults, reserved_for_others } =
        session.circumstances().await?;
    // The server read its clock between the two.
    seen.skew_s = Some(clock_s - f64::midpoint(before, now_s()));
    let own = report.local_address.map(|address| address.ip().to_canonical());
    seen.translated = own
        .zip(seen_as.map(|address| address.to_canonical()))
        .filter(|(own, seen)| own != seen)
        .map(|(own, seen)| (own.to_string(), seen.to_string()));
    (seen.connection_limit, seen.defaults, seen.reserved_for_others) =
        (connection_limit, defaults, reserved_for_others);
    let rights = session.rights().await?;
    seen.superuser = rights.superuser;
    seen.missing.extend(rights.advice(true).map(str::to_owned));
    if engine::blocks_hosts(database)
        && let Some(errors) = session.connect_errors().await?
        && let Counted::ByAddress { addresses, .. } = errors.counted
    {
        let worst = addresses.values().map(|address| address.errors).max().unwrap_or(0);
        seen.connect_errors = Some((worst, errors.limit));
    }
    Ok(())
}

/// Logs in through a port. Which instance is behind it is unknown, so the certificate decides whose name is signed.
async fn through(database: &Database, port: &Port, chain: &CredentialChain, seen: &mut [live::Instance]) {
    let mut tried: Option<(usize, Through)> = None;
    let mut next = Some(0);
    while let Some(index) = next {
        let Some(instance) = database.instances.get(index) else { break };
        let target = instance.target.clone().dialled_at(port.address.clone());
        let (session, report) = log_in(database, instance, &target, chain).await;
        let certificate = report.certificate.as_ref().map(identity);
        let failure = match session {
            Ok(session) => {
                session.close().await;
                None
            }
            Err(fault) => Some(failure(&fault)),
        };
        // Another instance's certificate: that one is behind the port.
        let other = seen.iter().position(|one| one.certificate.is_some() && one.certificate == certificate);
        next = other.filter(|other| failure.is_some() && *other != index && tried.is_none());
        let address = port.address.to_string();
        tried = Some((index, Through { address, failure, certificate }));
    }
    if let Some((index, through)) = tried
        && let Some(seen) = seen.get_mut(index)
    {
        seen.proxies.push(through);
    }
}

async fn log_in(
    database: &Database,
    instance: &Instance,
    target: &Target,
    chain: &CredentialChain,
) -> (Result<Box<dyn Session>, Fault>, LoginReport) {
    let prepared = async {
        let token = token(instance, chain)
            .await
            .map_err(|error| Fault::new(Phase::Login, FaultKind::NoToken, error))?;
        let trust = TlsTrust::load(database.trust.clone())
            .map_err(|error| Fault::new(Phase::Tls, FaultKind::CertificateInvalid, error.to_string()))?;
        Ok((token, trust))
    };
    match prepared.await {
        Ok((token, trust)) => {
            engine::of(database).login(target, &trust, token.expose_secret(), &Limits::default()).await
        }
        Err(fault) => (Err(fault), LoginReport::default()),
    }
}

/// A token for the endpoint of the instance.
pub(super) async fn token(instance: &Instance, chain: &CredentialChain) -> Result<Arc<Token>, String> {
    let region = match &instance.region {
        Some(region) => Region::parse(region).ok(),
        None => chain.region().await,
    };
    let region = region.ok_or("no region is known: set `region`, or AWS_REGION")?;
    let Target { endpoint, user, .. } = &instance.target;
    let signed = agent_aws::Target::new(&endpoint.host, endpoint.port, user, region)
        .map_err(|error| error.to_string())?;
    TokenSource::start(chain.clone(), signed).token().await.map_err(|error| error.to_string())
}

/// What identifies a certificate: its issuer and serial number.
fn identity(certificate: &CertificateFacts) -> String {
    format!("{} of {}", certificate.serial, certificate.issuer)
}

fn failure(fault: &Fault) -> Failure {
    let trouble = match fault.kind {
        FaultKind::NameNotResolved => Trouble::NameNotResolved,
        FaultKind::ConnectionRefused => Trouble::Refused,
        FaultKind::TimedOut | FaultKind::Unreachable => Trouble::TimedOut,
        FaultKind::Disconnected => Trouble::Reset,
        FaultKind::TlsNotOffered => Trouble::TlsNotOffered,
        FaultKind::CertificateInvalid | FaultKind::TlsFailed => Trouble::Certificate,
        FaultKind::NoToken => Trouble::NoToken,
        FaultKind::LoginRefused => Trouble::LoginRefused,
        FaultKind::HostBlocked => Trouble::HostBlocked,
        FaultKind::TooManyConnections => Trouble::TooManyConnections,
        _ => Trouble::Other,
    };
    Failure { trouble, message: fault.to_string() }
}

fn now_s() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}
