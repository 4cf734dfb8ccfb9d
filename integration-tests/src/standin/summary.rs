//! What a person or a script has to know to use a running stand-in.

use std::{fmt, net::SocketAddr, path::PathBuf};

use serde::Serialize;

use super::{DATABASE, Engine, Error, StandIn};

/// Names, addresses, files and environment. It holds the password of `legacy` and the
/// authorization of the credentials endpoint: those of a stand-in are no secrets.
#[derive(Clone, Debug, Serialize)]
pub struct Summary {
    pub engine: Engine,
    /// In the order of their names.
    pub servers: Vec<ServerSummary>,
    /// The writer's name, such as `a`.
    pub writer: String,
    /// A name that each server's certificate has and each takes tokens for.
    pub cluster_endpoint: String,
    pub reader_endpoint: String,
    /// The port of all servers.
    pub port: u16,
    /// The region of the tokens.
    pub region: String,
    /// The database of the applications.
    pub database: &'static str,
    /// What clients have to trust.
    pub ca_file: PathBuf,
    /// What finds the credentials endpoint.
    pub environment: Vec<(String, String)>,
    /// Of the user `legacy`, who logs in without a token.
    pub legacy_password: String,
}

#[derive(Clone, Debug, Serialize)]
pub struct ServerSummary {
    /// Its name, such as `a`.
    pub name: String,
    /// What tokens are signed for, and TLS verifies; without the port.
    pub endpoint: String,
    pub connect: SocketAddr,
}

impl StandIn {
    /// What has to be known to use it.
    pub fn summary(&self) -> Result<Summary, Error> {
        let writer = self.writer()?;
        let servers = self.servers().iter().map(|server| ServerSummary {
            name: server.name().to_owned(),
            endpoint: server.endpoint().to_owned(),
            connect: server.connect(),
        });
        Ok(Summary {
            engine: self.engine(),
            servers: servers.collect(),
            writer: writer.name().to_owned(),
            cluster_endpoint: self.cluster_endpoint().to_owned(),
            reader_endpoint: self.reader_endpoint().to_owned(),
            port: writer.connect().port(),
            region: self.region().to_owned(),
            database: DATABASE,
            ca_file: self.ca_file().to_owned(),
            environment: self.environment(),
            legacy_password: self.legacy_password().to_owned(),
        })
    }
}

impl Summary {
    /// A command line of `psql` or `mariadb` that dials `dialled` (a server, or a proxy before
    /// it) as `user`; `token_command` prints the token. psql verifies that the server is
    /// `endpoint`; mariadb can verify only the name that it dials, so verification is switched off.
    pub fn command_line(
        &self,
        endpoint: &str,
        dialled: SocketAddr,
        user: &str,
        token_command: &str,
    ) -> String {
        let (address, port) = (dialled.ip(), dialled.port());
        let (database, ca_file) = (self.database, self.ca_file.display());
        match self.engine {
            Engine::Postgresql => format!(
                "PGPASSWORD=\"$({token_command})\" psql \"host={endpoint} hostaddr={address} port={port} \
                 dbname={database} user={user} sslmode=verify-full sslrootcert={ca_file}\""
            ),
            Engine::Mariadb => format!(
                "MYSQL_PWD=\"$({token_command})\" LIBMYSQL_ENABLE_CLEARTEXT_PLUGIN=1 mariadb --no-defaults \
                 --host={address} --port={port} --user={user} --ssl --ssl-ca={ca_file} \
                 --skip-ssl-verify-server-cert {database}"
            ),
        }
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for ServerSummary { name, endpoint, connect } in &self.servers {
            let role = if *name == self.writer { "writer" } else { "replica" };
            writeln!(formatter, "  {name}  {role:<8} {endpoint}:{}  at {connect}", self.port)?;
        }
        writeln!(formatter, "  each also as {} and {}", self.cluster_endpoint, self.reader_endpoint)?;
        writeln!(formatter, "\nTrust {}", self.ca_file.display())?;
        writeln!(formatter, "\nFor the agent and for clients:")?;
        for (name, value) in &self.environment {
            writeln!(formatter, "  export {name}={value}")?;
        }
        writeln!(formatter, "\nUsers, in the database {}:", self.database)?;
        writeln!(formatter, "  app, app2        with a token")?;
        writeln!(formatter, "  lb_agent         with a token; may close sessions")?;
        let routine = match self.engine {
            Engine::Postgresql => "function",
            Engine::Mariadb => "procedure",
        };
        writeln!(formatter, "  lb_agent_plain   with a token; may close sessions only through a {routine}")?;
        writeln!(formatter, "  legacy           with the password {}", self.legacy_password)
    }
}
