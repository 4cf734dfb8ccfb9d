//! A real MySQL instead of MariaDB, if `STANDIN_MYSQL_BIN` names the folder of a `mysqld`.
//!
//! Debian has none, so no test requires it. With it, the tests of the MySQL family run on MySQL unchanged, but for those that
//! use what only MariaDB has.
//!
//! - [`replication`]: replicas, by GTID.
//!
//! Its plugin is `pam/rds_iam.c`, with the name of RDS's plugin, so that the operator's scripts
//! run unchanged. The tests' client supports none of the password plugins of MySQL 9, so
//! passwords are sent in clear text over TLS.

mod replication;

use std::{
    env,
    fmt::Write as _,
    fs, io,
    path::{Path, PathBuf},
    sync::LazyLock,
};

use async_trait::async_trait;

use super::{
    Error, Options, Server, SqlError, StopMode,
    mariadb::{USERS_AND_TABLES, names},
    programs::{self, Programs},
    server::{Driver, Rows, START, make_folder, remove_folder, write},
};
use crate::{
    mysql::{self, Dial, Login, Secret, Session, Tls},
    process::{self, Launch, Signal},
    tls::VerifiedTls,
};

/// RDS's name. It logs in by TCP from any host.
const SUPERUSER: &str = "rdsadmin";

/// The environment variable with the folder of its `mysqld`.
pub const FOLDER_VARIABLE: &str = "STANDIN_MYSQL_BIN";

#[derive(Debug)]
pub(super) struct Mysqld;

impl Mysqld {
    /// Whether MySQL runs instead of MariaDB.
    pub(super) fn is_chosen() -> bool {
        static CHOSEN: LazyLock<bool> = LazyLock::new(|| env::var_os(FOLDER_VARIABLE).is_some());
        *CHOSEN
    }
}

#[async_trait]
impl Driver for Mysqld {
    fn name(&self) -> &'static str {
        "mysql"
    }

    fn find_programs(&self) -> Result<Programs, process::Error> {
        Programs::find("MySQL", "mysql-server-core", &["mysqld"], FOLDER_VARIABLE, [])
    }

    async fn build_libraries(&self, folder: &Path, logs: &Path) -> Result<(), process::Error> {
        programs::build_pam(folder, logs).await?;
        programs::build_plugin(folder, logs).await?;
        programs::build_names(folder, logs).await
    }

    fn settings(&self, options: &Options) -> String {
        let mut settings = format!("[mysqld]\nmax_connections = {}\n", options.max_connections);
        let _ = writeln!(settings, "max_connect_errors = {}", options.max_connect_errors);
        let _ = writeln!(settings, "performance_schema = {}", u8::from(options.performance_schema));
        settings.push_str(SETTINGS);
        for (name, value) in &options.settings {
            // Writing to a string does not fail.
            let _ = writeln!(settings, "{name} = {value}");
        }
        settings
    }

    fn sources(&self) -> Vec<String> {
        [USERS_AND_TABLES, AGENT, RETIRE, CATCH, GRANTS].map(str::to_owned).into()
    }

    fn template_settings(&self) -> &'static str {
        "gtid_mode = OFF\nenforce_gtid_consistency = OFF\nskip_log_bin\n"
    }

    fn lay_out(&self, server: &Server) -> Result<(), process::Error> {
        begin(server)?;
        configure(server, None)
    }

    async fn install(&self, server: &Server) -> Result<(), process::Error> {
        let (common, data, temporary) = (server.common(), server.data(), temporary(server));
        for folder in [&data, &temporary] {
            remove_folder(folder)?;
            make_folder(folder, 0o700, common.account.as_ref())?;
        }
        server
            .launch("mysqld")
            .args([
                "--no-defaults",
                "--initialize-insecure",
                "--innodb-flush-method=nosync",
                "--innodb-doublewrite=OFF",
            ])
            .arg(format!("--datadir={}", data.display()))
            .arg(format!("--tmpdir={}", temporary.display()))
            .run(START)
            .await?;
        Ok(())
    }

    async fn set_up(&self, server: &Server) -> Result<(), Error> {
        let by_token = "IDENTIFIED WITH AWSAuthenticationPlugin AS 'RDS'";
        server.execute(&USERS_AND_TABLES.replace("IDENTIFIED VIA pam USING 'rds_iam'", by_token)).await?;
        for script in [AGENT, &AGENT.replace("lb_agent", "lb_agent_plain"), RETIRE, CATCH] {
            run_script(server, script).await?;
        }
        server.execute(GRANTS).await.map(drop)
    }

    async fn initialise(&self, server: &Server) -> Result<(), process::Error> {
        remove_folder(&temporary(server))?;
        make_folder(&temporary(server), 0o700, server.common().account.as_ref())?;
        begin(server)?;
        server.copy_template().await?;
        // Each server has its own UUID, which it makes when it has none.
        match fs::remove_file(server.data().join("auto.cnf")) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(process::Error::io("remove the UUID of the template".to_owned())(error))
            }
            _ => Ok(()),
        }
    }

    async fn set_passwords(&self, writer: &Server, users: [(&str, &str); 2]) -> Result<(), Error> {
        for (user, password) in users {
            // Replicas log in with a plugin of MySQL's own.
            let plugin = match user {
                "replicator" => format!("caching_sha2_password BY '{password}'"),
                _ => format!("standin_password AS '{password}'"),
            };
            writer.execute(&format!("ALTER USER {user} IDENTIFIED WITH {plugin} ACCOUNT UNLOCK")).await?;
        }
        Ok(())
    }

    fn launch(&self, server: &Server) -> Launch {
        server
            .launch("mysqld")
            .arg(format!("--defaults-file={}", server.folder().join("my.cnf").display()))
            .env("LD_PRELOAD", server.common().libraries.join(programs::NAMES))
            .env("IAM_STANDIN_NAMES", names(server))
    }

    fn signal(&self, mode: StopMode) -> Signal {
        match mode {
            StopMode::Fast => Signal::TERM,
            StopMode::Immediate => Signal::KILL,
        }
    }

    async fn execute(&self, server: &Server, sql: &str) -> Result<Rows, SqlError> {
        let mut session = superuser(server).await?;
        let rows = session.query(sql).await?;
        session.quit().await?;
        Ok(rows)
    }

    async fn is_writer(&self, server: &Server) -> Result<bool, Error> {
        Ok(server.value("SELECT @@read_only").await? == "0")
    }

    async fn hand_over(&self, writer: &Server) -> Result<(), Error> {
        replication::hand_over(writer).await
    }

    async fn promote(&self, replica: &Server) -> Result<(), Error> {
        replication::promote(replica).await
    }

    async fn follow(&self, replica: &Server, writer: &Server) -> Result<(), Error> {
        replication::follow(replica, writer).await
    }

    /// Keeps the data if the new writer has all of it; otherwise starts from the template.
    async fn rejoin(&self, old: &Server, writer: &Server) -> Result<(), Error> {
        configure(old, Some(writer))?;
        old.start().await?;
        if !replication::includes(writer, old).await? {
            old.stop(StopMode::Immediate).await?;
            return self.make_replica(old, writer).await;
        }
        replication::follow(old, writer).await
    }

    async fn make_replica(&self, server: &Server, writer: &Server) -> Result<(), Error> {
        self.initialise(server).await?;
        configure(server, Some(writer))?;
        server.start().await?;
        replication::follow(server, writer).await
    }
}

// === its files ===

const SETTINGS: &str = "\
plugin_load_add = rds_iam.so
mysqlx = OFF
secure_file_priv = NULL
log_bin = binlog
sync_binlog = 0
gtid_mode = ON
enforce_gtid_consistency = ON
relay_log = relay
relay_log_recovery = ON
replica_net_timeout = 10

# Nothing here outlives the machine.
innodb_flush_method = nosync
innodb_flush_log_at_trx_commit = 2
innodb_doublewrite = OFF
innodb_buffer_pool_size = 32M
innodb_redo_log_capacity = 16M
default_time_zone = '+00:00'
";

/// Writes its settings; with an `upstream` it refuses writes.
fn configure(server: &Server, upstream: Option<&Server>) -> Result<(), process::Error> {
    let common = server.common();
    let first = server.folder().join("first.sql");
    // The template's data has another stand-in's password. No replica receives this.
    let sql = format!(
        "SET sql_log_bin = 0;\n\
         CREATE USER IF NOT EXISTS {SUPERUSER} IDENTIFIED WITH standin_password AS '{}' REQUIRE SSL;\n\
         ALTER USER {SUPERUSER} IDENTIFIED WITH standin_password AS '{}';\n\
         GRANT ALL ON *.* TO {SUPERUSER} WITH GRANT OPTION;\n\
         DROP USER IF EXISTS root@localhost;\n",
        common.passwords.superuser, common.passwords.superuser
    );
    write(&first, &sql, 0o600, common.account.as_ref())?;
    let mut settings = common.settings.clone();
    let folder = server.folder().display();
    for (name, value) in [
        ("datadir", server.data().display().to_string()),
        ("tmpdir", temporary(server).display().to_string()),
        ("pid_file", format!("{folder}/data/mysqld.pid")),
        ("socket", server.sockets().join("mysql.sock").display().to_string()),
        ("plugin_dir", common.libraries.display().to_string()),
        ("init_file", first.display().to_string()),
        ("bind_address", server.connect().ip().to_string()),
        ("port", server.connect().port().to_string()),
        ("ssl_ca", common.ca_file.display().to_string()),
        ("ssl_cert", server.certificate_file().display().to_string()),
        ("ssl_key", server.key_file().display().to_string()),
        ("report_host", server.name().to_owned()),
        ("read_only", if upstream.is_some() { "ON" } else { "OFF" }.to_owned()),
    ] {
        let _ = writeln!(settings, "{name} = {value}");
    }
    let settings = format!("{settings}!include {}\n", identity(server).display());
    write(&server.folder().join("my.cnf"), &settings, 0o600, common.account.as_ref())
}

/// The `server_id`, by which binary logs name their server.
fn identity(server: &Server) -> PathBuf {
    server.folder().join("identity.cnf")
}

/// A new `server_id`: a replica skips events with its own.
fn begin(server: &Server) -> Result<(), process::Error> {
    let new = format!("[mysqld]\nserver_id = {}\n", fastrand::u32(1..));
    write(&identity(server), &new, 0o644, None)
}

fn temporary(server: &Server) -> PathBuf {
    server.folder().join("tmp")
}

// === asking it ===

async fn superuser(server: &Server) -> Result<Session, mysql::Error> {
    let common = server.common();
    let tls = Tls {
        config: VerifiedTls::from_ca_file(&common.ca_file)?.config(),
        name: server.endpoint().to_owned(),
    };
    let login = Login {
        dial: Dial::Tcp(server.connect()),
        from: None,
        tls: Some(tls),
        user: SUPERUSER.to_owned(),
        secret: Secret::Token(common.passwords.superuser.clone()),
        database: None,
    };
    let mut session = login.connect().await?;
    // Not there yet before it is made.
    let _ = session.query(&format!("USE {}", super::DATABASE)).await;
    Ok(session)
}

/// Runs a script as an operator would, whose client knows `DELIMITER`.
async fn run_script(server: &Server, script: &str) -> Result<(), Error> {
    let mut delimiter = ";";
    let mut statement = String::new();
    for line in script.lines() {
        if let Some(other) = line.strip_prefix("DELIMITER ") {
            delimiter = other;
        } else if let Some(last) = line.trim_end().strip_suffix(delimiter) {
            server.execute(&format!("{statement}{last}")).await?;
            statement.clear();
        } else {
            let _ = writeln!(statement, "{line}");
        }
    }
    Ok(())
}

/// The operator's own scripts.
const AGENT: &str = include_str!("../../../../deploy/mysql/agent.sql");
const RETIRE: &str = include_str!("../../../../deploy/mysql/retire.sql");
const CATCH: &str = include_str!("../../../../deploy/mysql/catch.sql");

const GRANTS: &str = "\
GRANT CONNECTION_ADMIN ON *.* TO lb_agent;
GRANT EXECUTE ON PROCEDURE rds_lb_agent.retire TO lb_agent_plain;
GRANT EXECUTE ON PROCEDURE rds_lb_agent.catch TO lb_agent_plain";
