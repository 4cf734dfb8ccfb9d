//! From the file to its meaning. All problems are found at once.
//!
//! A part of the file has a part here: [`databases`], [`proxies`], [`sessions`],
//! [`listen`]; single values are in [`values`].

mod databases;
mod listen;
mod proxies;
mod sessions;
mod values;

use agent_core::plan::Policy;

use super::{Config, Database, Log, Problem, Proxy, file, state_dir};

/// A value that is wrong; what is wrong with it has been told.
struct Told;

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
        self.tell_envoys_apart(file);
        let proxies: Option<Vec<Proxy>> = proxies.into_iter().collect();
        self.same_server_twice(file);
        self.same_place_twice(file);
        let sessions = file
            .sessions
            .as_ref()
            .map_or_else(|| Some(Policy::default()), |sessions| self.sessions(sessions));
        if let Some(policy) = &sessions {
            self.what_envoys_cannot(file, policy);
            self.what_innodb_trx_needs(file, policy);
        }
        // Everything is looked at before anything is given up.
        let envoy = file.proxies.iter().any(|proxy| proxy.value().envoy.is_some());
        let listen = self.listen(&file.listen, envoy);
        let state_dir = self.path(file.state_dir.as_ref(), state_dir::DEFAULT);
        Some(Config {
            databases: databases.into_iter().collect::<Option<_>>()?,
            proxies: proxies?,
            sessions: sessions?,
            listen: listen?,
            state_dir: state_dir?,
            log: Log {
                format: file.log.format.unwrap_or_default(),
                level: file.log.level.unwrap_or_default(),
            },
        })
    }
}
