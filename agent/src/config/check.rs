//! From the file to its meaning. All problems are found at once.

use std::{collections::BTreeSet, net::SocketAddr, time::Duration};

use agent_core::{
    InstanceId, ServerId,
    health::{self, HealthRules, ServerConfig, WantedRole},
    plan::{self, Policy},
};
use agent_database::{Address, Method, Target, TrustSource};

use super::{
    Config, Database, Instance, Listen, Log, Problem, Proxy,
    file::{self, At},
    problem::suggest,
    value,
};

/// The life of an IAM token: a longer `max_age` outlives it.
const TOKEN_LIFE: Duration = Duration::from_secs(15 * 60);

#[derive(Default)]
struct Check {
    problems: Vec<Problem>,
    warnings: Vec<Problem>,
}

/// The meaning of a file, its problems and its oddities. There is a meaning
/// only if there is no problem.
pub(super) fn check(file: &file::File) -> (Option<Config>, Vec<Problem>, Vec<Problem>) {
    let mut check = Check::default();
    let config = check.file(file);
    (config, check.problems, check.warnings)
}

impl Check {
    fn problem(&mut self, problem: Problem) {
        self.problems.push(problem);
    }

    fn file(&mut self, file: &file::File) -> Option<Config> {
        if file.databases.value().is_empty() {
            let hint = "name at least one database with its instances";
            self.problem(Problem::at(file.databases.location(), "`databases` is empty").hint(hint));
        }
        self.distinct(file.databases.value().iter().map(|database| &database.name), "database");
        let databases: Vec<Option<Database>> =
            file.databases.value().iter().map(|database| self.database(database)).collect();
        let proxies: Vec<Option<Proxy>> =
            file.proxies.iter().enumerate().map(|(index, proxy)| self.proxy(index, proxy, file)).collect();
        let proxies: Option<Vec<Proxy>> = proxies.into_iter().collect();
        self.same_server_twice(file);
        let sessions = file
            .sessions
            .as_ref()
            .map_or_else(|| Some(Policy::default()), |sessions| self.sessions(sessions));
        Some(Config {
            databases: databases.into_iter().collect::<Option<_>>()?,
            proxies: proxies?,
            sessions: sessions?,
            listen: self.listen(&file.listen)?,
            state_dir: file.state_dir.as_ref().map_or("/var/lib/rds-lb-agent", |path| path.value()).into(),
            log: Log {
                format: file.log.format.unwrap_or_default(),
                level: file.log.level.unwrap_or_default(),
            },
        })
    }

    // === databases ===

    fn database(&mut self, file: &file::Database) -> Option<Database> {
        self.name(&file.name, "database");
        if *file.engine.value() != file::Engine::Postgresql {
            let hint = "this version looks after postgresql only; leave the database out until then";
            self.problem(Problem::at(file.engine.location(), "this engine is not supported yet").hint(hint));
        }
        if file.user.value().trim().is_empty() {
            let hint = "name the database user that the agent logs in as, a member of rds_iam";
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
        rules.max_lag = self.optional_duration(file.max_lag.as_ref())?;
        let probe_interval = self.duration(file.probe_interval.as_ref(), Duration::from_secs(30))?;
        if probe_interval < Duration::from_secs(1)
            && let Some(at) = &file.probe_interval
        {
            let hint = "each probe is an IAM login on the instance; 30s is gentle, 1s the least";
            self.problem(Problem::at(at.location(), "`probe_interval` is too short").hint(hint));
        }
        Some(Database {
            instances: instances.into_iter().collect::<Option<_>>()?,
            rules,
            probe_interval,
            liveness,
            trust: file
                .ca_file
                .as_ref()
                .map_or(TrustSource::BuiltIn, |path| TrustSource::File(path.value().into())),
            method: match file.close_method {
                None | Some(file::CloseMethod::Auto) => None,
                Some(file::CloseMethod::Signal) => Some(Method::Signal),
                Some(file::CloseMethod::Function) => Some(Method::Function),
            },
        })
    }

    fn liveness(&mut self, file: Option<&At<file::Liveness>>, rules: &mut HealthRules) -> bool {
        let Some(at) = file else { return true };
        let mut set = |text: &str, field: &mut Duration| match value::duration(text) {
            Ok(interval) if interval >= Duration::from_millis(50) => *field = interval,
            Ok(_) => {
                self.problem(Problem::at(at.location(), "`liveness` is too short").hint("50ms is the least"))
            }
            Err(hint) => self.problem(Problem::at(at.location(), "`liveness` is not a duration").hint(hint)),
        };
        match at.value() {
            file::Liveness::Switch(on) => return *on,
            file::Liveness::Word(word) if word == "off" => return false,
            file::Liveness::Word(word) => {
                set(word, &mut rules.liveness_writer);
                set(word, &mut rules.liveness_reader);
            }
            file::Liveness::ByRole { writer, reader } => {
                if let Some(writer) = writer {
                    set(writer, &mut rules.liveness_writer);
                }
                if let Some(reader) = reader {
                    set(reader, &mut rules.liveness_reader);
                }
            }
        }
        true
    }

    fn instance(&mut self, database: &file::Database, file: &file::Instance) -> Option<Instance> {
        self.name(&file.name, "instance");
        let endpoint = self.address(&file.endpoint);
        let connect = file.connect.as_ref().map(|connect| self.address(connect));
        let endpoint = endpoint?;
        self.endpoint_name(&file.endpoint, &endpoint.host);
        let region = match &database.region {
            Some(region) => {
                if let Err(error) = agent_aws::Region::parse(region.value()) {
                    self.problem(Problem::at(region.location(), error.to_string()));
                }
                Some(region.value().clone())
            }
            None => agent_aws::Region::from_endpoint(&endpoint.host).map(|region| region.as_str().to_owned()),
        };
        let id = InstanceId::new(database.name.value(), file.name.value());
        let name = database.database_name.as_ref().map_or("postgres", |name| name.value());
        let mut target = Target::new(id, endpoint, database.user.value(), name);
        if let Some(connect) = connect {
            target = target.dialled_at(connect?);
        }
        Some(Instance { target, region })
    }

    /// A token signed for another name than the instance's own is refused by RDS.
    fn endpoint_name(&mut self, at: &At<String>, host: &str) {
        let problem = if host.parse::<std::net::IpAddr>().is_ok() {
            "this is an address: tokens are signed for the RDS name"
        } else if host == "localhost" {
            "this is not an RDS name: tokens are signed for the RDS name"
        } else if host.contains(".cluster-") || host.contains(".proxy-") {
            "this is a cluster's or a proxy's endpoint: name each instance by its own"
        } else {
            if !host.contains(".rds.") {
                let hint = "the balancer's name or an alias will not do here: RDS accepts only tokens signed for its own name";
                let warning =
                    Problem::at(at.location(), "this does not look like an RDS endpoint").hint(hint);
                self.warnings.push(warning);
            }
            return;
        };
        let hint = "write the RDS endpoint in `endpoint`, and what is dialled in `connect`";
        self.problem(Problem::at(at.location(), problem).hint(hint));
    }

    // === proxies ===

    fn proxy(&mut self, index: usize, proxy: &file::Proxy, file: &file::File) -> Option<Proxy> {
        let socket = self.socket(&proxy.haproxy.socket);
        let master = proxy.haproxy.master.as_ref().map(|master| self.socket(master));
        let mut servers = Vec::new();
        for (name, backend) in &proxy.backends {
            self.backend(index, name, backend, file, &mut servers);
        }
        Some(Proxy {
            socket: socket?,
            master: master.map_or(Some(None), |master| master.map(Some))?,
            servers,
        })
    }

    fn backend(
        &mut self,
        proxy: usize,
        name: &str,
        backend: &file::Backend,
        file: &file::File,
        servers: &mut Vec<ServerConfig>,
    ) {
        let databases = file.databases.value();
        let Some(database) = databases.iter().find(|one| one.name.value() == backend.database.value()) else {
            let known: Vec<&String> = databases.iter().map(|one| one.name.value()).collect();
            let message = format!("backend `{name}`: there is no database `{}`", backend.database.value());
            let hint = suggest(backend.database.value(), &known);
            return self.problem(Problem::at(backend.database.location(), message).hint(hint));
        };
        if backend.servers.value().is_empty() {
            let hint = "map each of HAProxy's servers to an instance";
            self.problem(
                Problem::at(backend.servers.location(), format!("backend `{name}` has no servers"))
                    .hint(hint),
            );
        }
        for (server, instance) in backend.servers.value() {
            let instances = database.instances.value();
            if !instances.iter().any(|one| one.name.value() == instance.value()) {
                let known: Vec<&String> = instances.iter().map(|one| one.name.value()).collect();
                let message = format!(
                    "server `{server}`: database `{}` has no instance `{}`",
                    database.name.value(),
                    instance.value()
                );
                let hint = suggest(instance.value(), &known);
                self.problem(Problem::at(instance.location(), message).hint(hint));
                continue;
            }
            servers.push(ServerConfig {
                id: ServerId::new(proxy, name, server),
                instance: InstanceId::new(database.name.value(), instance.value()),
                wanted: match backend.role {
                    file::Role::Writer => WantedRole::Writer,
                    file::Role::Reader => WantedRole::Reader,
                    file::Role::Any => WantedRole::Any,
                },
            });
        }
    }

    /// `agent-send` carries backend and server, not the proxy: two proxies must not share a name.
    fn same_server_twice(&mut self, file: &file::File) {
        let mut seen = BTreeSet::new();
        for proxy in &file.proxies {
            for (name, backend) in &proxy.backends {
                for (server, instance) in backend.servers.value() {
                    if !seen.insert((name, server)) {
                        let hint = "agent checks name backend and server only: give each proxy an agent, or its backends names of their own";
                        let message = format!("`{name}/{server}` is a server of two proxies");
                        self.problem(Problem::at(instance.location(), message).hint(hint));
                    }
                }
            }
        }
    }

    fn socket(&mut self, at: &At<String>) -> Option<haproxy::Address> {
        match at.value().parse() {
            Ok(address) => Some(address),
            Err(error) => {
                self.problem(Problem::at(at.location(), error));
                None
            }
        }
    }

    // === sessions ===

    fn sessions(&mut self, file: &file::Sessions) -> Option<Policy> {
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
            scope: file.users.clone().map_or(plan::Scope::Iam, plan::Scope::Users),
            force_after: force_after?,
            demotion_grace: demotion_grace?,
            ..default
        };
        self.policy(file, &policy);
        Some(policy)
    }

    /// What is wrong or odd about values that are fine alone.
    fn policy(&mut self, file: &file::Sessions, policy: &Policy) {
        if let Some(at) = &file.max_age {
            if policy.max_age < Duration::from_secs(5) {
                let hint = "each close is a login for the client; 14m is one token life, 5s the least";
                self.problem(Problem::at(at.location(), "`max_age` is too short").hint(hint));
            } else if policy.max_age > TOKEN_LIFE {
                let hint = "fine as a policy of your own; 14m keeps every session within one token life";
                let message = "`max_age` is longer than the 15 minutes that a token lives";
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
                let hint = "below 200ms clients were seen to break; 200ms is the least";
                self.problem(Problem::at(at.location(), "`quiet_min` is too short").hint(hint));
            }
            if policy.quiet > policy.window() {
                let hint = format!("the window is {:?} at this `max_age`", policy.window());
                let message = "`quiet` is longer than the window in which a session may go";
                self.warnings.push(Problem::at(at.location(), message).hint(hint));
            }
        }
        if let Some(at) = file.login_budget.as_ref().filter(|at| *at.value() < 2) {
            let hint = "one close and one login a second are the least";
            self.problem(Problem::at(at.location(), "`login_budget` is too small").hint(hint));
        }
        for (at, what) in [(&file.force_after, "force_after"), (&file.demotion_grace, "demotion_grace")] {
            if let Some(at) = at {
                let message = format!("`{what}` closes sessions inside transactions");
                self.warnings.push(Problem::at(at.location(), message));
            }
        }
    }

    fn network(&mut self, at: &At<String>) -> Option<plan::Network> {
        match at.value().parse() {
            Ok(network) => Some(network),
            Err(error) => {
                self.problem(Problem::at(at.location(), error));
                None
            }
        }
    }

    // === listening ===

    fn listen(&mut self, file: &file::Listen) -> Option<Listen> {
        let remote = file.allow_remote.unwrap_or(false);
        let agent_check = self.listener(file.agent_check.as_ref(), 7878, remote);
        let http = self.listener(file.http.as_ref(), 7879, remote);
        Some(Listen {
            agent_check: agent_check?,
            http: http?,
            control: file
                .control
                .as_ref()
                .map_or("/run/rds-lb-agent/control.sock", |path| path.value())
                .into(),
        })
    }

    fn listener(&mut self, at: Option<&At<String>>, port: u16, remote: bool) -> Option<SocketAddr> {
        let Some(at) = at else { return Some(SocketAddr::from(([127, 0, 0, 1], port))) };
        let Ok(address) = at.value().parse::<SocketAddr>() else {
            let hint = format!("write an address and a port, like 127.0.0.1:{port}");
            self.problem(
                Problem::at(at.location(), format!("`{}` is not an address", at.value())).hint(hint),
            );
            return None;
        };
        if !address.ip().is_loopback() && !remote {
            let hint = "the port is not authenticated; say `allow_remote: true` beside it if the network is";
            let message = format!("other hosts can reach {address}");
            self.problem(Problem::at(at.location(), message).hint(hint));
        }
        Some(address)
    }

    // === values ===

    fn name(&mut self, at: &At<String>, what: &str) {
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        if at.value().is_empty() || !at.value().chars().all(plain) {
            let message = format!("`{}` cannot be the name of a {what}", at.value());
            let hint = "it stands in URLs and metrics: letters, digits, `-`, `_` and `.`";
            self.problem(Problem::at(at.location(), message).hint(hint));
        }
    }

    fn distinct<'a>(&mut self, names: impl Iterator<Item = &'a At<String>>, what: &str) {
        let mut seen = BTreeSet::new();
        for name in names {
            if !seen.insert(name.value()) {
                let message = format!("there are two {what}s called `{}`", name.value());
                self.problem(Problem::at(name.location(), message).hint("give each a name of its own"));
            }
        }
    }

    fn address(&mut self, at: &At<String>) -> Option<Address> {
        match value::host_port(at.value()) {
            Ok((host, port)) => Some(Address::new(host, port)),
            Err(hint) => {
                self.problem(
                    Problem::at(at.location(), format!("`{}` is not HOST:PORT", at.value())).hint(hint),
                );
                None
            }
        }
    }

    fn duration(&mut self, at: Option<&At<String>>, default: Duration) -> Option<Duration> {
        Some(self.optional_duration(at)?.unwrap_or(default))
    }

    fn optional_duration(&mut self, at: Option<&At<String>>) -> Option<Option<Duration>> {
        let Some(at) = at else { return Some(None) };
        match value::duration(at.value()) {
            Ok(duration) => Some(Some(duration)),
            Err(hint) => {
                self.problem(
                    Problem::at(at.location(), format!("`{}` is not a duration", at.value())).hint(hint),
                );
                None
            }
        }
    }

    fn share(&mut self, at: Option<&At<String>>, default: f64) -> Option<f64> {
        let Some(at) = at else { return Some(default) };
        match value::share(at.value()) {
            Ok(share) => Some(share),
            Err(hint) => {
                self.problem(
                    Problem::at(at.location(), format!("`{}` is not a share", at.value())).hint(hint),
                );
                None
            }
        }
    }
}
