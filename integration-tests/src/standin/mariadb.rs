//! The stand-in's servers as MariaDB: settings, users and tables, replication by GTID.
//!
//! Every server keeps its complete binary log since it was copied from the template, so a new
//! replica starts from the same copy and catches up. No backups are needed.

use std::{
    env,
    fmt::Write as _,
    path::{Path, PathBuf},
    time::Duration,
};

use async_trait::async_trait;

use super::{
    DATABASE, Error, Options, Server, SqlError, StopMode,
    programs::{self, Programs},
    server::{Driver, PATIENCE, Rows, START, make_folder, remove_folder, write},
};
use crate::{
    mysql::{self, Dial, Login, Record, Secret, Session},
    process::{self, Launch, Signal, wait_for},
};

/// The superuser, with RDS's name, who logs in through the Unix socket only.
const SUPERUSER: &str = "rdsadmin";

/// The environment variable with the folder of MariaDB's programs, if it is not Debian's.
pub const FOLDER_VARIABLE: &str = "STANDIN_MARIADB_BIN";

const NEEDED: [&str; 3] = ["mariadbd", "mariadb-install-db", "mariadb"];

/// The longest wait of a writer that stops for its replicas.
const HAND_OVER: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub(super) struct Mariadb;

#[async_trait]
impl Driver for Mariadb {
    fn name(&self) -> &'static str {
        "mariadb"
    }

    /// By [`FOLDER_VARIABLE`], else in `PATH` and where Debian has servers.
    fn find_programs(&self) -> Result<Programs, process::Error> {
        let in_path = env::var_os("PATH").unwrap_or_default();
        let mut folders: Vec<PathBuf> = env::split_paths(&in_path).collect();
        folders.extend(["/usr/sbin".into(), "/usr/bin".into()]);
        Programs::find("MariaDB", "mariadb-server", &NEEDED, FOLDER_VARIABLE, [folders])
    }

    async fn build_libraries(&self, folder: &Path, logs: &Path) -> Result<(), process::Error> {
        programs::build_pam(folder, logs).await?;
        programs::build_names(folder, logs).await
    }

    fn settings(&self, options: &Options) -> String {
        let mut settings = format!("[mariadbd]\nmax_connections = {}\n", options.max_connections);
        let _ = writeln!(settings, "max_connect_errors = {}", options.max_connect_errors);
        settings.push_str(SETTINGS);
        settings.push_str(if options.performance_schema { WATCHED } else { "performance_schema = OFF\n" });
        for (name, value) in &options.settings {
            // Writing to a string does not fail.
            let _ = writeln!(settings, "{name} = {value}");
        }
        settings
    }

    /// The log begins with the copies.
    fn template_settings(&self) -> &'static str {
        "skip_log_bin\nlog_slave_updates = OFF\n"
    }

    fn sources(&self) -> Vec<String> {
        let mut sources: Vec<String> =
            RETIRE_PROCEDURES.iter().map(|(_, script)| (*script).to_owned()).collect();
        sources.extend([USERS_AND_TABLES, SUPERUSER_ALONE, MORE_GRANTS].map(str::to_owned));
        sources.push(agent_script("lb_agent"));
        sources
    }

    fn lay_out(&self, server: &Server) -> Result<(), process::Error> {
        configure(server, None)
    }

    async fn install(&self, server: &Server) -> Result<(), process::Error> {
        begin(server)?;
        let data = server.data();
        let superuser = server.folder().join("superuser.sql");
        write(&superuser, SUPERUSER_ALONE, 0o600, server.common().account.as_ref())?;
        server
            .launch("mariadb-install-db")
            .arg("--no-defaults")
            .arg(format!("--datadir={}", data.display()))
            .arg(format!("--tmpdir={}", temporary(server).display()))
            .arg(format!("--extra-file={}", superuser.display()))
            .args(["--auth-root-authentication-method=normal", "--skip-test-db", "--skip-name-resolve"])
            .args(["--innodb-flush-method=nosync", "--sync-frm=OFF"])
            .args(FILES.map(|(name, value)| format!("--{name}={value}")))
            .run(START)
            .await?;
        Ok(())
    }

    async fn set_up(&self, server: &Server) -> Result<(), Error> {
        server.execute(USERS_AND_TABLES).await?;
        for user in ["lb_agent", "lb_agent_plain"] {
            run_script(server, "agent.sql", &agent_script(user)).await?;
        }
        for (name, script) in RETIRE_PROCEDURES {
            run_script(server, name, script).await?;
        }
        server.execute(MORE_GRANTS).await?;
        Ok(())
    }

    async fn initialise(&self, server: &Server) -> Result<(), process::Error> {
        begin(server)?;
        server.copy_template().await
    }

    async fn set_passwords(&self, writer: &Server, users: [(&str, &str); 2]) -> Result<(), Error> {
        for (user, password) in users {
            let open = format!("ALTER USER {user} IDENTIFIED BY '{password}' ACCOUNT UNLOCK");
            writer.execute(&open).await?;
        }
        Ok(())
    }

    fn launch(&self, server: &Server) -> Launch {
        server
            .launch("mariadbd")
            // Said first: no other file of settings is read.
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

    /// Stops the writer when every replica has received its log, or after [`HAND_OVER`].
    async fn hand_over(&self, writer: &Server) -> Result<(), Error> {
        match writer.execute("SHUTDOWN WAIT FOR ALL SLAVES").await {
            // It may close the connection before it answers, or not run at all.
            Ok(_) | Err(Error::Sql { .. }) => {}
            // A frozen one is thawed by the stop, and cannot be asked before.
            Err(_) => return writer.stop(StopMode::Fast).await,
        }
        if writer.ended_within(HAND_OVER).await.is_err() {
            return writer.stop(StopMode::Immediate).await;
        }
        writer.stop(StopMode::Fast).await
    }

    /// All that it has received is applied first.
    async fn promote(&self, replica: &Server) -> Result<(), Error> {
        replica.execute("STOP SLAVE IO_THREAD").await?;
        let what = format!("server {} to apply what it has", replica.name());
        let applied = || async {
            let Some(status) = replication(replica).await.map_err(|error| error.to_string())? else {
                return Ok(());
            };
            let (received, applied) = (said(&status, "Gtid_IO_Pos"), said(&status, "Gtid_Slave_Pos"));
            let all = received.is_empty() || received == applied;
            all.then_some(()).ok_or_else(|| format!("it has received {received} and is at {applied}"))
        };
        wait_for(&what, PATIENCE, applied).await?;
        configure(replica, None)?;
        replica.execute("STOP SLAVE; RESET SLAVE ALL; SET GLOBAL read_only = OFF").await.map(drop)
    }

    async fn follow(&self, replica: &Server, writer: &Server) -> Result<(), Error> {
        configure(replica, Some(writer))?;
        let follow =
            format!("STOP SLAVE; SET GLOBAL read_only = ON; {}; START SLAVE", upstream(writer, false));
        replica.execute(&follow).await?;
        wait_until_follows(writer, replica).await
    }

    /// Keeps the data if the new writer has all of it; otherwise starts from the template.
    async fn rejoin(&self, old: &Server, writer: &Server) -> Result<(), Error> {
        configure(old, Some(writer))?;
        old.start().await?;
        let held = old.value("SELECT @@gtid_binlog_pos").await?;
        if !includes(&writer.value("SELECT @@gtid_binlog_state").await?, &held) {
            old.stop(StopMode::Immediate).await?;
            return self.make_replica(old, writer).await;
        }
        old.execute(&format!("{}; START SLAVE", upstream(writer, true))).await?;
        wait_until_follows(writer, old).await
    }

    async fn make_replica(&self, server: &Server, writer: &Server) -> Result<(), Error> {
        self.initialise(server).await?;
        configure(server, Some(writer))?;
        server.start().await?;
        server.execute(&format!("{}; START SLAVE", upstream(writer, false))).await?;
        wait_until_follows(writer, server).await
    }
}

// === its files ===

const SETTINGS: &str = "\
plugin_load_add = auth_pam_v1
pam_use_cleartext_plugin = ON
tls_version = TLSv1.2,TLSv1.3

# Nothing here outlives the machine, but all of it a server that is killed.
innodb_flush_method = nosync
innodb_flush_log_at_trx_commit = 2
innodb_doublewrite = OFF
sync_binlog = 0
innodb_buffer_pool_size = 32M
innodb_buffer_pool_dump_at_shutdown = OFF
innodb_buffer_pool_load_at_startup = OFF
innodb_temp_data_file_path = ibtmp1:4M:autoextend
key_buffer_size = 1M
aria_pagecache_buffer_size = 8M

log_bin = binlog
log_slave_updates = ON
binlog_format = ROW
relay_log = relay
relay_log_recovery = ON
slave_net_timeout = 10

character_set_server = utf8mb4
default_time_zone = '+00:00'
";

/// What has to be on for open transactions and the locks of tables to be seen.
const WATCHED: &str = "\
performance_schema = ON
performance_schema_instrument = 'transaction=ON'
performance_schema_instrument = 'statement/%=ON'
performance_schema_instrument = 'wait/lock/metadata/sql/mdl=ON'
performance_schema_consumer_events_transactions_current = ON
performance_schema_consumer_events_statements_current = ON
";

/// The same when the empty database is made and when it is used.
const FILES: [(&str, &str); 3] = [
    ("innodb_data_file_path", "ibdata1:4M:autoextend"),
    ("innodb_autoextend_increment", "4"),
    ("innodb_log_file_size", "32M"),
];

/// Writes its settings; with an `upstream` it refuses writes.
pub(super) fn configure(server: &Server, upstream: Option<&Server>) -> Result<(), process::Error> {
    let common = server.common();
    let mut settings = String::new();
    let mut set = |name: &str, value: String| {
        // Writing to a string does not fail.
        let _ = writeln!(settings, "{name} = {value}");
    };
    let path = |path: PathBuf| format!("'{}'", path.display());
    for (name, value) in FILES {
        set(name, value.to_owned());
    }
    set("datadir", path(server.data()));
    set("tmpdir", path(temporary(server)));
    set("pid_file", path(server.data().join("mariadbd.pid")));
    set("socket", path(socket(server)));
    set("bind_address", server.connect().ip().to_string());
    set("port", server.connect().port().to_string());
    set("ssl_ca", path(common.ca_file.clone()));
    set("ssl_cert", path(server.certificate_file()));
    set("ssl_key", path(server.key_file()));
    set("report_host", server.name().to_owned());
    set("init_file", path(first(server)));
    set("read_only", if upstream.is_some() { "ON" } else { "OFF" }.to_owned());
    // The template's data has another stand-in's password.
    let sql = format!(
        "SET sql_log_bin = 0;\nALTER USER {SUPERUSER}@localhost IDENTIFIED BY '{}';\n",
        common.passwords.superuser
    );
    write(&first(server), &sql, 0o600, common.account.as_ref())?;
    let settings = format!("{}{settings}!include {}\n", common.settings, identity(server).display());
    write(&server.folder().join("my.cnf"), &settings, 0o600, common.account.as_ref())
}

fn socket(server: &Server) -> PathBuf {
    server.sockets().join("mariadb.sock")
}

/// Not shared: a server that starts removes all temporary tables from this folder.
fn temporary(server: &Server) -> PathBuf {
    server.folder().join("tmp")
}

/// The `server_id`, by which binary logs name their server.
fn identity(server: &Server) -> PathBuf {
    server.folder().join("identity.cnf")
}

/// Statements that a server runs at each start (`init_file`).
fn first(server: &Server) -> PathBuf {
    server.folder().join("first.sql")
}

/// Makes empty folders for data and temporary tables, and a new `server_id`.
fn begin(server: &Server) -> Result<(), process::Error> {
    for folder in [&server.data(), &temporary(server)] {
        remove_folder(folder)?;
        make_folder(folder, 0o700, server.common().account.as_ref())?;
    }
    // A replica skips events with its own `server_id`, so each start from the template has a new one.
    let new = format!("[mariadbd]\nserver_id = {}\n", fastrand::u32(1..));
    write(&identity(server), &new, 0o644, None)
}

/// Without the users that the installation makes, but for the superuser.
const SUPERUSER_ALONE: &str = "\
FLUSH PRIVILEGES;
CREATE USER rdsadmin@localhost;
GRANT ALL ON *.* TO rdsadmin@localhost WITH GRANT OPTION;
DELETE FROM mysql.global_priv WHERE User = 'root';
";

// === its process ===

/// What the library of names goes by.
fn names(server: &Server) -> String {
    let names = server.common().names.iter().map(|(address, name)| format!("{address} {name}"));
    names.collect::<Vec<_>>().join(" ")
}

// === asking it ===

async fn superuser(server: &Server) -> Result<Session, mysql::Error> {
    /// There is no such database, before it is made.
    const UNKNOWN_DATABASE: u16 = 1049;
    let mut login = Login {
        dial: Dial::Unix(socket(server)),
        from: None,
        tls: None,
        user: SUPERUSER.to_owned(),
        secret: Secret::Password(server.common().passwords.superuser.clone()),
        database: Some(DATABASE.to_owned()),
    };
    match login.connect().await {
        Err(error) if error.code() == Some(UNKNOWN_DATABASE) => {
            login.database = None;
            login.connect().await
        }
        other => other,
    }
}

/// Runs a script as an operator would, with the client that knows `DELIMITER`.
async fn run_script(server: &Server, name: &str, script: &str) -> Result<(), process::Error> {
    let common = server.common();
    let file = server.folder().join(name);
    write(&file, script, 0o600, common.account.as_ref())?;
    server
        .launch("mariadb")
        .args(["--no-defaults", "--user", SUPERUSER, "--socket"])
        .arg(socket(server))
        .arg(format!("--execute=source {}", file.display()))
        .env("MYSQL_PWD", &common.passwords.superuser)
        .run(START)
        .await?;
    Ok(())
}

/// The operator's own script for the agent's user. Here it is made twice, for `pam`.
fn agent_script(user: &str) -> String {
    include_str!("../../../deploy/mysql/agent.sql")
        .replace("IDENTIFIED WITH AWSAuthenticationPlugin AS 'RDS'", "IDENTIFIED VIA pam USING 'rds_iam'")
        .replace("lb_agent", user)
}

/// The operator's own scripts for closing sessions.
const RETIRE_PROCEDURES: [(&str, &str); 2] = [
    ("retire.sql", include_str!("../../../deploy/mysql/retire.sql")),
    ("catch.sql", include_str!("../../../deploy/mysql/catch.sql")),
];

/// One of the agent's users may close sessions itself, the other through the procedures only.
const MORE_GRANTS: &str = "\
GRANT REPLICA MONITOR ON *.* TO lb_agent, lb_agent_plain;
GRANT CONNECTION ADMIN ON *.* TO lb_agent;
GRANT EXECUTE ON PROCEDURE rds_lb_agent.retire TO lb_agent_plain;
GRANT EXECUTE ON PROCEDURE rds_lb_agent.catch TO lb_agent_plain";

/// MySQL's driver takes them too.
pub(super) const USERS_AND_TABLES: &str = include_str!("mariadb.sql");

// === replication ===

/// Whether a server in this state (the last transaction of each domain and server) has all up
/// to this position. A replica may not find out itself: asked to go on after a transaction
/// that it never had, a writer skips its own until their numbers are beyond that one.
fn includes(state: &str, position: &str) -> bool {
    let parsed = |gtid: &str| {
        let (origin, number) = gtid.trim().rsplit_once('-')?;
        Some((origin.to_owned(), number.parse::<u64>().ok()?))
    };
    let state: Vec<_> = state.split(',').filter_map(parsed).collect();
    position.split(',').filter(|gtid| !gtid.is_empty()).all(|gtid| {
        parsed(gtid).is_some_and(|(origin, number)| {
            state.iter().any(|(known, last)| *known == origin && *last >= number)
        })
    })
}

/// Encrypted; its name is not verified, since only its address leads to it.
fn upstream(writer: &Server, was_writer: bool) -> String {
    let common = writer.common();
    format!(
        "CHANGE MASTER TO MASTER_HOST = '{}', MASTER_PORT = {}, MASTER_USER = 'replicator', \
         MASTER_PASSWORD = '{}', MASTER_SSL = 1, MASTER_SSL_CA = '{}', \
         MASTER_SSL_VERIFY_SERVER_CERT = 0, MASTER_CONNECT_RETRY = 1, \
         MASTER_HEARTBEAT_PERIOD = 2, MASTER_USE_GTID = slave_pos{}",
        writer.connect().ip(),
        writer.connect().port(),
        common.passwords.replicator,
        common.ca_file.display(),
        if was_writer { ", MASTER_DEMOTE_TO_SLAVE = 1" } else { "" },
    )
}

/// Until it has applied all that the writer has now.
async fn wait_until_follows(writer: &Server, replica: &Server) -> Result<(), Error> {
    let position = writer.value("SELECT @@gtid_current_pos").await?;
    let what = format!("server {} to follow {}", replica.name(), writer.name());
    let look = format!("SELECT MASTER_GTID_WAIT('{position}', 0.2)");
    let follows = || async {
        let status = replication(replica).await.map_err(|error| error.to_string())?;
        if let Some(failure) = status.as_ref().and_then(failure) {
            return Ok(Some(failure));
        }
        match replica.value(&look).await {
            Ok(reached) if reached == "0" => Ok(None),
            Ok(_) => Err(format!("it has not reached {position}")),
            Err(error) => Err(error.to_string()),
        }
    };
    match wait_for(&what, PATIENCE, follows).await? {
        None => Ok(()),
        Some(reason) => Err(Error::CannotFollow { server: replica.name().to_owned(), reason }),
    }
}

/// The replication status of a replica; `None` when it follows no server.
async fn replication(server: &Server) -> Result<Option<Record>, mysql::Error> {
    let mut session = superuser(server).await?;
    let status = session.records("SHOW ALL SLAVES STATUS").await?.pop();
    session.quit().await?;
    Ok(status)
}

fn said<'a>(status: &'a Record, column: &str) -> &'a str {
    status.get(column).and_then(Option::as_deref).unwrap_or_default()
}

/// Why replication has stopped for good.
fn failure(status: &Record) -> Option<String> {
    ["IO", "SQL"].into_iter().find_map(|thread| {
        let stopped = said(status, &format!("Slave_{thread}_Running")) == "No";
        let failed = said(status, &format!("Last_{thread}_Errno")) != "0";
        (stopped && failed).then(|| said(status, &format!("Last_{thread}_Error")).to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::includes;

    #[test]
    fn a_state_includes_what_is_not_after_it() {
        assert!(includes("0-1-50,0-2-53", "0-1-50"));
        assert!(includes("0-1-50,0-2-53", "0-2-9"));
        assert!(includes("0-1-50", ""));
        assert!(!includes("0-1-50,0-2-53", "0-1-51"), "though another server's numbers are higher");
        assert!(!includes("0-1-50", "0-3-1"));
        assert!(!includes("", "0-1-1"));
        assert!(!includes("0-1-50", "nonsense"));
    }
}
