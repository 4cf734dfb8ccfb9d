//! `check` as HAProxy runs it (`option external-check`): exit code 0 is up,
//! anything else is down.
//!
//! A single login knows neither siblings nor history, so only proof takes a server out of rotation: it
//! refuses connections or does not answer, or it reports the other role. An invalid configuration,
//! missing credentials or refused tokens are no proof.

use agent_aws::credentials::{ChainOptions, CredentialChain};
use agent_core::{Evidence, Fault, health::WantedRole};

use super::{
    Exit,
    check::{Finding, one, show},
    complain,
};
use crate::{
    cli::{Check, Role},
    config::{self, Config, Database, Instance},
};

const BACKEND: &str = "HAPROXY_PROXY_NAME";

const SERVER: &str = "HAPROXY_SERVER_NAME";

pub(super) async fn external(arguments: &Check) -> Exit {
    let config = match config::load(&arguments.config.config) {
        Ok(loaded) => loaded.config,
        Err(problems) => {
            eprint!("{problems}");
            return Exit::Ok;
        }
    };
    let name = |variable| std::env::var(variable).unwrap_or_default();
    let (backend, server) = (name(BACKEND), name(SERVER));
    let Some((database, instance, role)) = find(&config, &backend, &server) else {
        complain(format_args!(
            "`{backend}/{server}` ({BACKEND}, {SERVER}) is not a server in {}; reported as up",
            arguments.config.config.display()
        ));
        return Exit::Ok;
    };
    let chain = CredentialChain::standard(ChainOptions::patient());
    let finding = one(database, instance, &chain, role).await;
    show(&finding);
    verdict(&finding)
}

fn find<'a>(config: &'a Config, backend: &str, server: &str) -> Option<(&'a Database, &'a Instance, Role)> {
    let server =
        config.servers().into_iter().find(|one| *one.id.backend == *backend && *one.id.server == *server)?;
    let (database, instance) = config.instances().find(|(_, one)| *one.id() == server.instance)?;
    let role = match server.wanted {
        WantedRole::Writer => Role::Writer,
        // A reader backend uses the writer when no replica is left, which a single login cannot know.
        WantedRole::Reader | WantedRole::Any => Role::Any,
    };
    Some((database, instance, role))
}

fn verdict(finding: &Finding) -> Exit {
    match finding.fault.as_ref().map(Fault::evidence) {
        None if finding.ok => Exit::Ok,
        None | Some(Evidence::Down | Evidence::Silent) => Exit::Problem,
        Some(Evidence::AuthIll | Evidence::Alive | Evidence::Nothing) => Exit::Ok,
    }
}
