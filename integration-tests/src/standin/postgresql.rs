//! The stand-in's servers as PostgreSQL: settings, base backups, streaming replication.

use std::{
    env,
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

use async_trait::async_trait;
use tokio_postgres::{Client, NoTls, SimpleQueryMessage, error::SqlState};

use super::{
    DATABASE, Error, Options, Server, SqlError, StopMode,
    programs::{self, Programs},
    server::{Driver, PATIENCE, Rows, START, make_folder, remove_folder, write},
};
use crate::process::{self, Launch, Signal, wait_for};

/// The superuser, with RDS's name, who logs in through the Unix socket only.
const SUPERUSER: &str = "rdsadmin";

/// The environment variable with the folder of PostgreSQL's programs, if it is not Debian's.
pub const FOLDER_VARIABLE: &str = "STANDIN_POSTGRES_BIN";

const NEEDED: [&str; 3] = ["initdb", "postgres", "pg_basebackup"];

#[derive(Debug)]
pub(super) struct Postgresql;

#[async_trait]
impl Driver for Postgresql {
    fn name(&self) -> &'static str {
        "postgresql"
    }

    /// By [`FOLDER_VARIABLE`], else the newest under `/usr/lib/postgresql` (where `PATH` does not
    /// lead), else in `PATH`.
    fn find_programs(&self) -> Result<Programs, process::Error> {
        let installed = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
        let mut versions: Vec<(u32, PathBuf)> = installed
            .filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path().join("bin"))))
            .collect();
        versions.sort_unstable_by_key(|(version, _)| std::cmp::Reverse(*version));
        let in_path = env::var_os("PATH").unwrap_or_default();
        let folders = versions.into_iter().map(|(_, folder)| vec![folder]);
        let folders = folders.chain(env::split_paths(&in_path).map(|folder| vec![folder]));
        Programs::find("PostgreSQL", "postgresql", &NEEDED, FOLDER_VARIABLE, folders)
    }

    async fn build_libraries(&self, folder: &Path, logs: &Path) -> Result<(), process::Error> {
        programs::build_pam(folder, logs).await
    }

    fn settings(&self, options: &Options) -> String {
        let mut settings = format!("max_connections = {}\n{SETTINGS}", options.max_connections);
        for (name, value) in &options.settings {
            // Writing to a string does not fail.
            let _ = writeln!(settings, "{name} = {value}");
        }
        settings
    }

    fn sources(&self) -> Vec<String> {
        [USERS_AND_TABLES].iter().chain(&RETIRE_FUNCTIONS).map(|&source| source.to_owned()).collect()
    }

    fn lay_out(&self, server: &Server) -> Result<(), process::Error> {
        write(&server.folder().join("pg_hba.conf"), HBA, 0o644, None)?;
        configure(server, None)
    }

    async fn install(&self, server: &Server) -> Result<(), process::Error> {
        make_folder(&server.data(), 0o700, server.common().account.as_ref())?;
        server
            .launch("initdb")
            .arg("-D")
            .arg(server.data())
            .args([
                "-U",
                SUPERUSER,
                "--auth=trust",
                "--encoding=UTF8",
                "--locale=C",
                "--no-sync",
                "--wal-segsize=4",
            ])
            .run(START)
            .await?;
        Ok(())
    }

    async fn set_up(&self, server: &Server) -> Result<(), Error> {
        server.execute(&format!("CREATE DATABASE {DATABASE}")).await?;
        for script in [USERS_AND_TABLES].iter().chain(&RETIRE_FUNCTIONS) {
            server.execute(script).await?;
        }
        Ok(())
    }

    async fn set_passwords(&self, writer: &Server, users: [(&str, &str); 2]) -> Result<(), Error> {
        for (role, password) in users {
            writer.execute(&format!("ALTER ROLE {role} PASSWORD '{password}'")).await?;
        }
        Ok(())
    }

    fn launch(&self, server: &Server) -> Launch {
        server
            .launch("postgres")
            .arg("-D")
            .arg(server.data())
            .arg(format!("--config-file={}", server.folder().join("postgresql.conf").display()))
            // An immediate shutdown, which leaves no shared memory behind.
            .dies_by("QUIT")
    }

    fn signal(&self, mode: StopMode) -> Signal {
        match mode {
            StopMode::Fast => Signal::INT,
            StopMode::Immediate => Signal::QUIT,
        }
    }

    async fn execute(&self, server: &Server, sql: &str) -> Result<Rows, SqlError> {
        let messages = superuser(server).await?.simple_query(sql).await?;
        let rows = messages.into_iter().filter_map(|message| match message {
            SimpleQueryMessage::Row(row) => {
                Some((0..row.len()).map(|column| row.get(column).map(str::to_owned)).collect())
            }
            _ => None,
        });
        Ok(rows.collect())
    }

    async fn is_writer(&self, server: &Server) -> Result<bool, Error> {
        Ok(server.value("SELECT pg_is_in_recovery()").await? == "f")
    }

    /// It sends everything before it ends.
    async fn hand_over(&self, writer: &Server) -> Result<(), Error> {
        writer.stop(StopMode::Fast).await
    }

    async fn promote(&self, replica: &Server) -> Result<(), Error> {
        replica.execute("SELECT pg_promote(wait => false)").await.map(drop)
    }

    async fn follow(&self, replica: &Server, writer: &Server) -> Result<(), Error> {
        configure(replica, Some(writer))?;
        replica.send(Signal::HUP).await?;
        wait_until_streams(writer, replica).await
    }

    /// Both begin with the same data, and the writer has all that it logged since.
    async fn make_first_replica(&self, server: &Server, writer: &Server) -> Result<(), Error> {
        server.copy_template().await?;
        make_standby(server, writer)?;
        server.start().await?;
        wait_until_streams(writer, server).await
    }

    async fn make_replica(&self, server: &Server, writer: &Server) -> Result<(), Error> {
        copy_from(server, writer).await?;
        server.start().await?;
        wait_until_streams(writer, server).await
    }
}

// === its files ===

const SETTINGS: &str = "\
ssl = on
ssl_min_protocol_version = 'TLSv1.2'
password_encryption = 'scram-sha-256'

# Nothing here outlives the machine.
fsync = off
full_page_writes = off
shared_buffers = 32MB
max_wal_size = 256MB
# In the data folder, so that nothing is left behind in /dev/shm.
dynamic_shared_memory_type = mmap
max_parallel_workers_per_gather = 0
jit = off

wal_level = replica
hot_standby = on
max_wal_senders = 20
wal_keep_size = 128MB
# Replicas come back soon after a restart or a failover.
wal_retrieve_retry_interval = 200ms
wal_receiver_timeout = 10s
wal_sender_timeout = 10s

timezone = 'UTC'
log_timezone = 'UTC'
log_line_prefix = '%m [%p] %q%u@%d %r '
";

/// As on RDS with IAM: a token over TLS, a password over TLS, nothing without TLS. The
/// superuser has no way in but the socket.
const HBA: &str = "\
local   all          all                      trust
hostssl replication  replicator  all          scram-sha-256
hostssl all          +rds_iam    all          pam
host    all          +rds_iam    all          reject
hostssl all          legacy      all          scram-sha-256
host    all          all         all          reject
";

/// Writes the settings. The server follows `upstream` while it is in recovery.
fn configure(server: &Server, upstream: Option<&Server>) -> Result<(), process::Error> {
    let common = server.common();
    let quoted = |text: &str| format!("'{}'", text.replace('\'', "''"));
    let path = |path: PathBuf| quoted(&path.display().to_string());
    let mut settings = common.settings.clone();
    let mut set = |name: &str, value: String| {
        // Writing to a string does not fail.
        let _ = writeln!(settings, "{name} = {value}");
    };
    set("cluster_name", quoted(server.name()));
    set("listen_addresses", quoted(&server.connect().ip().to_string()));
    set("port", server.connect().port().to_string());
    set("unix_socket_directories", path(server.sockets()));
    set("hba_file", path(server.folder().join("pg_hba.conf")));
    set("ssl_cert_file", path(server.certificate_file()));
    set("ssl_key_file", path(server.key_file()));
    if let Some(upstream) = upstream {
        let password = format!(" password={}", common.passwords.replicator);
        set("primary_conninfo", quoted(&(conninfo(server, upstream) + &password)));
    }
    // Has the password of the replication.
    write(&server.folder().join("postgresql.conf"), &settings, 0o600, common.account.as_ref())
}

/// How a replica reaches `upstream`, without the password.
fn conninfo(server: &Server, upstream: &Server) -> String {
    let ca_file = server.common().ca_file.display().to_string().replace('\\', r"\\").replace('\'', r"\'");
    format!(
        "host={} hostaddr={} port={} user=replicator application_name={} \
         sslmode=verify-full sslrootcert='{ca_file}' connect_timeout=5",
        upstream.endpoint(),
        upstream.connect().ip(),
        upstream.connect().port(),
        server.name(),
    )
}

/// Makes it a copy of a running server, which it will follow when it is started.
async fn copy_from(server: &Server, upstream: &Server) -> Result<(), process::Error> {
    let (common, data) = (server.common(), server.data());
    remove_folder(&data)?;
    make_folder(&data, 0o700, common.account.as_ref())?;
    server
        .launch("pg_basebackup")
        .arg("-D")
        .arg(&data)
        .arg("-d")
        .arg(conninfo(server, upstream))
        .env("PGPASSWORD", &common.passwords.replicator)
        .args(["--checkpoint=fast", "--wal-method=stream", "--no-sync"])
        .run(START)
        .await?;
    make_standby(server, upstream)
}

fn make_standby(server: &Server, upstream: &Server) -> Result<(), process::Error> {
    configure(server, Some(upstream))?;
    write(&server.data().join("standby.signal"), "", 0o600, server.common().account.as_ref())
}

// === asking it ===

/// A connection as superuser to the database `orders` (or `postgres`, before that is made).
async fn superuser(server: &Server) -> Result<Client, tokio_postgres::Error> {
    match superuser_of(server, DATABASE).await {
        Err(error) if error.code() == Some(&SqlState::INVALID_CATALOG_NAME) => {
            superuser_of(server, "postgres").await
        }
        other => other,
    }
}

async fn superuser_of(server: &Server, database: &str) -> Result<Client, tokio_postgres::Error> {
    let (client, connection) = tokio_postgres::Config::new()
        .host_path(server.sockets())
        .port(server.connect().port())
        .user(SUPERUSER)
        .dbname(database)
        .application_name("iam-standin")
        .connect(NoTls)
        .await?;
    // Ends when the client is dropped.
    tokio::spawn(connection);
    Ok(client)
}

/// The operator's own scripts, and who may use their functions: the agent's user that has no
/// `pg_signal_backend`.
const RETIRE_FUNCTIONS: [&str; 3] = [
    include_str!("../../../deploy/postgresql/retire.sql"),
    include_str!("../../../deploy/postgresql/catch.sql"),
    "GRANT lb_agent_retire TO lb_agent_plain",
];

const USERS_AND_TABLES: &str = include_str!("postgresql.sql");

// === replication ===

async fn wait_until_streams(writer: &Server, replica: &Server) -> Result<(), Error> {
    let what = format!("server {} to stream from {}", replica.name(), writer.name());
    let sql = format!(
        "SELECT state FROM pg_stat_replication WHERE application_name = '{}' AND state = 'streaming'",
        replica.name()
    );
    let streams = || async {
        match writer.value(&sql).await {
            Ok(state) if state == "streaming" => Ok(()),
            Ok(_) => Err("it does not".to_owned()),
            Err(error) => Err(error.to_string()),
        }
    };
    Ok(wait_for(&what, PATIENCE, streams).await?)
}
