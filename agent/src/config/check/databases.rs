//! Databases and their instances.

use std::time::Duration;

use agent_core::{
    InstanceId,
    health::{self, HealthRules},
    plan::{CloseVia, Mode, Policy},
};
use agent_database::{Address, Method, Target, TrustSource};

use super::{
    super::{
        Database, Instance, Lines, Problem, Topology,
        file::{self, At},
        value,
    },
    Check,
};

impl Check {
    pub(super) fn database(&mut self, file: &file::Database) -> Option<Database> {
        self.name(&file.name, "database");
        let engine = *file.engine.value();
        self.mysql_only(file);
        if file.user.value().trim().is_empty() {
            let hint = "name the database user that the agent logs in as, by IAM";
            self.problem(Problem::at(file.user.location(), "`user` is empty").hint(hint));
        }
        if file.instances.value().is_empty() {
            let hint = "name each database server with its own endpoint";
            self.problem(Problem::at(file.instances.location(), "`instances` is empty").hint(hint));
        }
        self.distinct(file.instances.value().iter().map(|instance| &instance.name), "instance");
        let instances: Vec<Option<Instance>> =
            file.instances.value().iter().map(|instance| self.instance(file, instance)).collect();
        let mut rules = HealthRules::default();
        let liveness = self.liveness(file.liveness.as_ref(), &mut rules);
        rules.on_auth_failure = match file.on_auth_failure {
            None | Some(file::OnAuthFailure::Auto) => health::OnAuthFailure::Auto,
            Some(file::OnAuthFailure::Keep) => health::OnAuthFailure::Keep,
            Some(file::OnAuthFailure::Down) => health::OnAuthFailure::Down,
        };
        rules.reader_fallback = match file.reader_fallback {
            None | Some(file::ReaderFallback::Writer) => health::ReaderFallback::Writer,
            Some(file::ReaderFallback::None) => health::ReaderFallback::None,
        };
        let topology = file.topology.as_ref().map(|topology| self.topology(topology));
        let max_lag = self.optional_duration(file.max_lag.as_ref());
        let probe_interval = self.duration(file.probe_interval.as_ref(), rules.probe_interval);
        let ca_file = file.ca_file.as_ref().map(|path| self.path(Some(path), "/etc/rds-lb-agent/ca.pem"));
        rules.max_lag = max_lag.ok()?;
        let probe_interval = probe_interval?;
        // The rules count in probe intervals how long a login is evidence.
        rules.probe_interval = probe_interval;
        if probe_interval < Duration::from_secs(1)
            && let Some(at) = &file.probe_interval
        {
            let hint = "each probe is an IAM login on the instance; the default is 30s, the minimum 1s";
            self.problem(Problem::at(at.location(), "`probe_interval` is too short").hint(hint));
        }
        let line = |at: &At<String>| at.location().line();
        Some(Database {
            name: file.name.value().clone(),
            lines: Lines {
                name: line(&file.name),
                ca_file: file.ca_file.as_ref().map_or_else(|| line(&file.name), line),
            },
            engine,
            open_transactions: file
                .open_transactions
                .as_ref()
                .map_or(file::OpenTransactions::PerformanceSchema, |at| *at.value()),
            instances: instances.into_iter().collect::<Option<_>>()?,
            topology: match topology {
                None => None,
                Some(topology) => Some(topology?),
            },
            rules,
            probe_interval,
            liveness,
            trust: match ca_file {
                None => TrustSource::BuiltIn,
                Some(path) => TrustSource::File(path?),
            },
            method: match file.close_method.as_ref().map(At::value) {
                None | Some(file::CloseMethod::Auto) => None,
                Some(file::CloseMethod::Signal) => Some(Method::Signal),
                Some(file::CloseMethod::Function) => Some(Method::Function),
                Some(file::CloseMethod::Platform) => Some(Method::Platform),
            },
        })
    }

    /// Refuses keys that have no meaning in PostgreSQL.
    fn mysql_only(&mut self, file: &file::Database) {
        if *file.engine.value() != file::Engine::Postgresql {
            return;
        }
        let hint = "PostgreSQL shows which sessions are in a transaction; remove this key";
        if let Some(at) = &file.open_transactions {
            self.problem(
                Problem::at(at.location(), "`open_transactions` is for mysql and mariadb").hint(hint),
            );
        }
        let platform = file.close_method.as_ref().filter(|at| *at.value() == file::CloseMethod::Platform);
        if let Some(at) = platform {
            let hint = "RDS for PostgreSQL has `signal` and `function`; `auto` uses what is available";
            self.problem(Problem::at(at.location(), "`platform` is for mysql and mariadb").hint(hint));
        }
    }

    /// Without a kept connection, no session is seen.
    pub(super) fn what_retiring_needs(
        &mut self,
        file: &file::File,
        policy: &Policy,
        databases: &[Option<Database>],
    ) {
        for (at, database) in file.databases.value().iter().zip(databases) {
            let Some(liveness) = at.liveness.as_ref().filter(|_| policy.mode == Mode::Retire) else {
                continue;
            };
            if database.as_ref().is_some_and(|database| !database.liveness) {
                let message = "`mode: retire` closes no session here: with `liveness: off` none is seen";
                let hint =
                    "give `liveness` an interval, or accept that sessions of this database are not retired";
                self.warnings.push(Problem::at(liveness.location(), message).hint(hint));
            }
        }
    }

    /// `innodb_trx` needs a quiet time of at least one second, whatever `quiet_min` is.
    pub(super) fn what_innodb_trx_needs(&mut self, file: &file::File, policy: &Policy) {
        let least = Duration::from_secs(1);
        let chosen = file.databases.value().iter().filter_map(|database| database.open_transactions.as_ref());
        let slow =
            |at: &&At<file::OpenTransactions>| *at.value() != file::OpenTransactions::PerformanceSchema;
        if policy.mode != Mode::Retire {
            return;
        }
        for at in chosen.filter(slow) {
            if policy.close_via == CloseVia::Proxy {
                // Only the closing statement itself knows whether its cache is fresh.
                let message = "`close_via: proxy` is not possible with this";
                let hint = "leave `close_via` out, or turn performance_schema on";
                self.problem(Problem::at(at.location(), message).hint(hint));
            }
            if policy.quiet_min >= least {
                continue;
            }
            let message = "sessions that are idle for less than a second are never closed with this";
            let hint = "write `quiet_min: 1s` below `sessions`, so that shorter idle times are not tried";
            self.warnings.push(Problem::at(at.location(), message).hint(hint));
        }
    }

    fn liveness(&mut self, file: Option<&At<file::Liveness>>, rules: &mut HealthRules) -> bool {
        let Some(at) = file else { return true };
        let mut set = |text: &str, location, field: &mut Duration| match value::duration(text) {
            Ok(interval) if interval >= Duration::from_millis(50) => *field = interval,
            Ok(_) => {
                self.problem(Problem::at(location, "`liveness` is too short").hint("the minimum is 50ms"));
            }
            Err(hint) => {
                self.problem(Problem::at(location, "`liveness` is not a duration").hint(hint));
            }
        };
        match at.value() {
            file::Liveness::Switch(on) => return *on,
            file::Liveness::Word(word) if word == "off" => return false,
            file::Liveness::Word(word) => {
                set(word, at.location(), &mut rules.liveness_writer);
                rules.liveness_reader = rules.liveness_writer;
            }
            file::Liveness::ByRole(intervals) => {
                if let Some(writer) = &intervals.writer {
                    set(writer.value(), writer.location(), &mut rules.liveness_writer);
                }
                if let Some(reader) = &intervals.reader {
                    set(reader.value(), reader.location(), &mut rules.liveness_reader);
                }
            }
        }
        true
    }

    fn topology(&mut self, at: &At<file::Topology>) -> Option<Topology> {
        let (identifier, topology): (_, fn(String) -> Topology) = match at.value() {
            file::Topology { cluster: Some(cluster), instance: None } => (cluster, Topology::Cluster),
            file::Topology { cluster: None, instance: Some(instance) } => (instance, Topology::Instance),
            _ => {
                let hint =
                    "write `cluster: IDENTIFIER` for Aurora and Multi-AZ clusters, or `instance: IDENTIFIER`";
                self.problem(Problem::at(at.location(), "`topology` needs one of its keys").hint(hint));
                return None;
            }
        };
        let text = identifier.value().to_ascii_lowercase();
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        if text.is_empty() || text.len() > 63 || !text.bytes().all(allowed) {
            let hint = "write the identifier (`orders`), not the endpoint and not the ARN";
            self.problem(
                Problem::at(identifier.location(), "this is not the identifier of a database in AWS")
                    .hint(hint),
            );
            return None;
        }
        Some(topology(text))
    }

    fn instance(&mut self, database: &file::Database, file: &file::Instance) -> Option<Instance> {
        self.name(&file.name, "instance");
        let endpoint = self.address(&file.endpoint);
        let connect = file.connect.as_ref().map(|connect| self.address(connect));
        let endpoint = endpoint?;
        self.endpoint_name(&file.endpoint, &endpoint.host);
        let named = agent_aws::Region::from_endpoint(&endpoint.host);
        let region = match &database.region {
            Some(given) => Some(self.region(given, named)?),
            None => named,
        };
        self.signable(file, database, &endpoint, region.as_ref());
        let region = region.map(|region| region.as_str().to_owned());
        let id = InstanceId::new(database.name.value(), file.name.value());
        let default = if *database.engine.value() == file::Engine::Postgresql { "postgres" } else { "" };
        let name = database.database_name.as_ref().map_or(default, |name| name.value());
        let mut target = Target::new(id, endpoint, database.user.value(), name);
        if let Some(connect) = connect {
            target = target.dialled_at(connect?);
        }
        Some(Instance { target, region })
    }

    fn region(&mut self, at: &At<String>, named: Option<agent_aws::Region>) -> Option<agent_aws::Region> {
        let given = match agent_aws::Region::parse(at.value()) {
            Ok(given) => given,
            Err(error) => {
                self.problem(Problem::advising(at.location(), &error.to_string()));
                return None;
            }
        };
        if let Some(named) = named.filter(|named| *named != given) {
            let message = format!("the endpoints' names say {named}");
            let hint = "RDS refuses tokens signed for another region than its own; leave `region` out";
            self.warnings.push(Problem::at(at.location(), message).hint(hint));
        }
        Some(given)
    }

    /// Reports targets that cannot be signed here, and not at the first login.
    fn signable(
        &mut self,
        file: &file::Instance,
        database: &file::Database,
        endpoint: &Address,
        region: Option<&agent_aws::Region>,
    ) {
        use agent_aws::TargetError;
        // If the region comes from the environment, any region will do to check the names.
        let Some(region) = region.cloned().or_else(|| agent_aws::Region::parse("eu-west-1").ok()) else {
            return;
        };
        let user = database.user.value();
        match agent_aws::Target::new(&endpoint.host, endpoint.port, user, region) {
            // An empty user is reported elsewhere.
            Err(TargetError::User { .. }) if user.trim().is_empty() => {}
            Err(error @ TargetError::User { .. }) => {
                self.problem(Problem::advising(database.user.location(), &error.to_string()));
            }
            // An address is reported elsewhere.
            Err(_) if endpoint.host.parse::<std::net::IpAddr>().is_ok() => {}
            Err(error) => self.problem(Problem::advising(file.endpoint.location(), &error.to_string())),
            Ok(_) => {}
        }
    }

    /// RDS refuses tokens that are signed for another name than the instance's own.
    fn endpoint_name(&mut self, at: &At<String>, host: &str) {
        let problem = if host.parse::<std::net::IpAddr>().is_ok() {
            "this is an address: tokens are signed for the RDS name"
        } else if host == "localhost" {
            "this is not an RDS name: tokens are signed for the RDS name"
        } else if [".cluster-", ".proxy-", ".global-"].iter().any(|part| host.contains(part)) {
            "this is the endpoint of a cluster or a proxy: use each instance's own endpoint"
        } else {
            if host.bytes().any(|byte| byte.is_ascii_uppercase()) {
                let hint = format!("write `{}`", host.to_lowercase());
                let warning = Problem::at(at.location(), "RDS endpoints are in lower case").hint(hint);
                self.warnings.push(warning);
            }
            if !host.contains(".rds.") {
                let hint = "RDS accepts only tokens signed for its own endpoint, not for the name of a load balancer or an alias";
                let warning =
                    Problem::at(at.location(), "this does not look like an RDS endpoint").hint(hint);
                self.warnings.push(warning);
            }
            return;
        };
        let hint = "write the RDS endpoint in `endpoint`, and the address to connect to in `connect`";
        self.problem(Problem::at(at.location(), problem).hint(hint));
    }
}
