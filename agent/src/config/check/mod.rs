//! From the file to its meaning. All errors are found at once.
//!
//! Each section of the file has a module here: [`databases`], [`proxies`], [`sessions`],
//! [`tokens`], [`listen`]; single values are in [`values`].

mod databases;
mod listen;
mod proxies;
mod sessions;
mod tokens;
mod values;

use agent_core::{
    ProxyIndex,
    health::Routing,
    plan::{Mode, Policy},
};

use super::{Config, Database, Log, Problem, Proxy, file, state_dir};

/// A value is invalid, and the problem has been added.
struct Invalid;

#[derive(Default)]
struct Check {
    problems: Vec<Problem>,
    warnings: Vec<Problem>,
}

/// The meaning of a file, its errors and its warnings. There is a meaning only if there are no errors.
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
        let proxies: Vec<Option<Proxy>> = file
            .proxies
            .iter()
            .enumerate()
            .map(|(index, proxy)| self.proxy(ProxyIndex(index), proxy, file))
            .collect();
        self.distinct_nodes(file);
        let proxies: Option<Vec<Proxy>> = proxies.into_iter().collect();
        self.same_server_twice(file);
        self.same_address_twice(file);
        self.own_sockets(file);
        let sessions = file
            .sessions
            .as_ref()
            .map_or_else(|| Some(Policy::default()), |sessions| self.sessions(sessions));
        if let Some(policy) = &sessions {
            self.possible_with_envoy(file, policy);
            self.what_innodb_trx_needs(file, policy);
            self.what_retiring_needs(file, policy, &databases);
        }
        let routing = self.routing(file, sessions.as_ref());
        self.distinct(file.token_files.iter().map(|file| &file.value().path), "token file");
        let token_files: Vec<_> = file.token_files.iter().map(|file| self.token_file(file)).collect();
        let token_socket = match &file.token_socket {
            Some(socket) => self.token_socket(socket, file).map(|(path, tokens)| (Some(path), tokens)),
            None => Some((None, Vec::new())),
        };
        // Everything is checked before the first `?`.
        let envoy = file.proxies.iter().any(|proxy| proxy.value().envoy.is_some());
        let listen = self.listen(&file.listen, envoy);
        let state_dir = self.path(file.state_dir.as_ref(), state_dir::DEFAULT);
        let (tokens, socket_tokens) = token_socket?;
        Some(Config {
            databases: databases.into_iter().collect::<Option<_>>()?,
            proxies: proxies?,
            routing,
            sessions: sessions?,
            token_files: token_files.into_iter().collect::<Option<_>>()?,
            socket_tokens,
            listen: super::Listen { tokens, ..listen? },
            state_dir: state_dir?,
            log: Log {
                format: file.log.format.unwrap_or_default(),
                level: file.log.level.unwrap_or_default(),
            },
        })
    }

    fn routing(&mut self, file: &file::File, sessions: Option<&Policy>) -> Routing {
        let Some(routing) = &file.routing else { return Routing::Act };
        if *routing.value() == file::Routing::Act {
            return Routing::Act;
        }
        if sessions.is_some_and(|sessions| sessions.mode != Mode::Observe) {
            let text =
                "`routing: observe` changes nothing at the proxies, but `sessions.mode` drains or closes";
            let hint = "set `sessions.mode: observe` until `routing` is `act`";
            self.problem(Problem::at(routing.location(), text).hint(hint));
        }
        Routing::Observe
    }
}
