//! One PostgreSQL server of a stand-in: its files, its process, its life.
//!
//! Which of them is the writer, and who follows whom, is not known here.

use std::{
    fmt::Write as _,
    fs::{self, File},
    io::{self, Write as _},
    net::SocketAddr,
    os::unix::fs::{OpenOptionsExt, PermissionsExt, chown},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use tokio::sync::Mutex;
use tokio_postgres::{Client, NoTls, SimpleQueryMessage};

use super::{Error, certificate::ServerCertificate, gate};
use crate::process::{
    self, Account, Launch, Process, Signal, children_of, is_stopped, send_signal, wait_for,
};

/// The superuser, who comes in through the Unix socket only. Named as on RDS.
const SUPERUSER: &str = "rdsadmin";

/// The database of the applications.
pub const DATABASE: &str = "orders";

const START: Duration = Duration::from_secs(60);
const STOP: Duration = Duration::from_secs(20);

/// How a server is told to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopMode {
    /// Sessions are ended cleanly: they read 57P01.
    Fast,
    /// As in a crash: sessions just end, and the next start recovers.
    Immediate,
}

/// What all servers of a stand-in share.
#[derive(Debug)]
pub(super) struct Common {
    /// Where PostgreSQL's programs are.
    pub(super) programs: PathBuf,
    /// Who runs them; `None` is the user of this process.
    pub(super) account: Option<Account>,
    /// Where their output goes.
    pub(super) logs: PathBuf,
    /// Has `libpam.so.0`.
    pub(super) libraries: PathBuf,
    /// Where tokens are judged.
    pub(super) gate: PathBuf,
    /// What the certificates are verified with.
    pub(super) ca_file: PathBuf,
    /// Of the user `replicator`.
    pub(super) replication_password: String,
    /// Lines of `postgresql.conf` that are the same for all.
    pub(super) settings: String,
}

/// One server.
#[derive(Debug)]
pub struct Server {
    name: String,
    endpoint: String,
    connect: SocketAddr,
    folder: PathBuf,
    running: Mutex<Running>,
}

#[derive(Debug, Default)]
struct Running {
    process: Option<Process>,
    /// Children that were stopped after the postmaster, in that order.
    frozen: Option<Vec<u32>>,
}

impl Server {
    /// Lays out its folder; nothing is started.
    pub(super) fn new(
        common: &Common,
        folder: PathBuf,
        name: String,
        endpoint: String,
        connect: SocketAddr,
        certificate: &ServerCertificate,
    ) -> Result<Self, process::Error> {
        let server = Self { name, endpoint, connect, folder, running: Mutex::default() };
        make_folder(&server.folder, 0o755, None)?;
        make_folder(&server.sockets(), 0o700, common.account.as_ref())?;
        write(&server.folder.join("server.crt"), &certificate.certificate, 0o644, None)?;
        write(&server.folder.join("server.key"), &certificate.key, 0o600, common.account.as_ref())?;
        write(&server.folder.join("pg_hba.conf"), HBA, 0o644, None)?;
        server.configure(common, None)?;
        Ok(server)
    }

    /// Its short name, such as `a`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its RDS-like name, which tokens are signed for and TLS verifies.
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// What is dialled: a loopback address and the port that all servers share.
    pub fn connect(&self) -> SocketAddr {
        self.connect
    }

    /// The process id of its postmaster; `None` when it does not run.
    pub async fn pid(&self) -> Option<u32> {
        let mut running = self.running.lock().await;
        running.process.as_mut().and_then(Process::running_pid)
    }

    /// Whether it was frozen and not thawed yet.
    pub async fn is_frozen(&self) -> bool {
        self.running.lock().await.frozen.is_some()
    }

    fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    fn sockets(&self) -> PathBuf {
        self.folder.join("socket")
    }

    // === making it ===

    /// Makes an empty database cluster.
    pub(super) async fn initialise(&self, common: &Common) -> Result<(), process::Error> {
        make_folder(&self.data(), 0o700, common.account.as_ref())?;
        self.launch(common, "initdb")
            .arg("-D")
            .arg(self.data())
            .args(["-U", SUPERUSER, "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync"])
            .run(START)
            .await?;
        Ok(())
    }

    /// Makes it a copy of a running server, which it will follow when it is started.
    pub(super) async fn copy_from(&self, common: &Common, upstream: &Server) -> Result<(), process::Error> {
        let data = self.data();
        if data.exists() {
            fs::remove_dir_all(&data).map_err(process::Error::io(format!("remove {}", data.display())))?;
        }
        make_folder(&data, 0o700, common.account.as_ref())?;
        self.launch(common, "pg_basebackup")
            .arg("-D")
            .arg(&data)
            .arg("-d")
            .arg(self.conninfo(common, upstream))
            .env("PGPASSWORD", &common.replication_password)
            .args(["--checkpoint=fast", "--wal-method=stream", "--no-sync"])
            .run(START)
            .await?;
        self.configure(common, Some(upstream))?;
        write(&data.join("standby.signal"), "", 0o600, common.account.as_ref())
    }

    /// Writes its settings; it follows `upstream` as long as it is in recovery.
    pub(super) fn configure(&self, common: &Common, upstream: Option<&Server>) -> Result<(), process::Error> {
        let quoted = |text: &str| format!("'{}'", text.replace('\'', "''"));
        let path = |path: PathBuf| quoted(&path.display().to_string());
        let mut settings = common.settings.clone();
        let mut set = |name: &str, value: String| {
            // Writing to a string does not fail.
            let _ = writeln!(settings, "{name} = {value}");
        };
        set("cluster_name", quoted(&self.name));
        set("listen_addresses", quoted(&self.connect.ip().to_string()));
        set("port", self.connect.port().to_string());
        set("unix_socket_directories", path(self.sockets()));
        set("hba_file", path(self.folder.join("pg_hba.conf")));
        set("ssl_cert_file", path(self.folder.join("server.crt")));
        set("ssl_key_file", path(self.folder.join("server.key")));
        if let Some(upstream) = upstream {
            let password = format!(" password={}", common.replication_password);
            set("primary_conninfo", quoted(&(self.conninfo(common, upstream) + &password)));
        }
        // Has the password of the replication.
        write(&self.folder.join("postgresql.conf"), &settings, 0o600, common.account.as_ref())
    }

    /// How a replica reaches `upstream`, without the password.
    fn conninfo(&self, common: &Common, upstream: &Server) -> String {
        let ca_file = common.ca_file.display().to_string().replace('\\', r"\\").replace('\'', r"\'");
        format!(
            "host={} hostaddr={} port={} user=replicator application_name={} \
             sslmode=verify-full sslrootcert='{ca_file}' connect_timeout=5",
            upstream.endpoint,
            upstream.connect.ip(),
            upstream.connect.port(),
            self.name,
        )
    }

    fn launch(&self, common: &Common, program: &str) -> Launch {
        Launch::new(&format!("{}-{program}", self.name), common.programs.join(program), &common.logs)
            .clean_environment()
            .folder(&self.folder)
            // libpq would look for certificates in a home that it may not read.
            .env("HOME", &self.folder)
            .account(common.account.as_ref())
    }

    // === running it ===

    /// Starts it and waits until it takes connections.
    pub(super) async fn start(&self, common: &Common) -> Result<(), Error> {
        let mut running = self.running.lock().await;
        if running.process.as_mut().is_some_and(Process::is_running) {
            return Ok(());
        }
        let process = self
            .launch(common, "postgres")
            .arg("-D")
            .arg(self.data())
            .arg(format!("--config-file={}", self.folder.join("postgresql.conf").display()))
            .env("LD_LIBRARY_PATH", &common.libraries)
            .envs(gate::environment(&common.gate, &self.name))
            // An immediate shutdown, which leaves no shared memory behind.
            .dies_by("QUIT")
            .spawn()?;
        running.frozen = None;
        let process = running.process.insert(process);
        let what = format!("server {} to take connections", self.name);
        process.ready(&what, START, || async { self.superuser().await.map(drop) }).await?;
        Ok(())
    }

    /// Stops it and waits for its end; a frozen one is thawed first.
    pub(super) async fn stop(&self, mode: StopMode) -> Result<(), Error> {
        let mut running = self.running.lock().await;
        running.thaw()?;
        if let Some(mut process) = running.process.take() {
            let signal = match mode {
                StopMode::Fast => Signal::INT,
                StopMode::Immediate => Signal::QUIT,
            };
            process.stop(signal, STOP).await?;
        }
        Ok(())
    }

    /// Reads its settings again.
    pub(super) async fn reload(&self) -> Result<(), Error> {
        if let Some(process) = &mut self.running.lock().await.process {
            process.signal(Signal::HUP)?;
        }
        Ok(())
    }

    /// Stops it as a hanging machine would: connections are taken by the kernel, nothing
    /// answers, nothing ends.
    pub(super) async fn freeze(&self) -> Result<(), Error> {
        let mut running = self.running.lock().await;
        if running.frozen.is_some() {
            return Ok(());
        }
        let Some(postmaster) = running.process.as_mut().and_then(Process::running_pid) else {
            return Err(Error::NotRunning(self.name.clone()));
        };
        // The postmaster first: it makes no more children. Each of those has a process group
        // of its own, so they are stopped one by one.
        send_signal(postmaster, Signal::STOP)?;
        let what = format!("the postmaster of server {} to stop", self.name);
        let stopped = || async { is_stopped(postmaster).then_some(()).ok_or("it runs") };
        let stopped = wait_for(&what, STOP, stopped).await;
        let children = children_of(postmaster);
        for child in &children {
            send_signal(*child, Signal::STOP)?;
        }
        running.frozen = Some(children);
        Ok(stopped?)
    }

    /// Lets a frozen server go on; any other is left as it is.
    pub(super) async fn thaw(&self) -> Result<(), Error> {
        Ok(self.running.lock().await.thaw()?)
    }

    /// Stops it without waiting for anything but its end.
    fn kill(&mut self) {
        let running = self.running.get_mut();
        let _ = running.thaw();
        let Some(mut process) = running.process.take() else { return };
        let _ = process.signal(Signal::QUIT);
        // The postmaster itself kills children that do not end within five seconds.
        let deadline = Instant::now() + Duration::from_secs(8);
        while process.is_running() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    // === asking it ===

    /// A connection as superuser, through its Unix socket, to the database `orders` (or
    /// `postgres`, before that is made).
    pub(super) async fn superuser(&self) -> Result<Client, tokio_postgres::Error> {
        match self.superuser_of(DATABASE).await {
            Err(error) if error.code() == Some(&tokio_postgres::error::SqlState::INVALID_CATALOG_NAME) => {
                self.superuser_of("postgres").await
            }
            other => other,
        }
    }

    async fn superuser_of(&self, database: &str) -> Result<Client, tokio_postgres::Error> {
        let (client, connection) = tokio_postgres::Config::new()
            .host_path(self.sockets())
            .port(self.connect.port())
            .user(SUPERUSER)
            .dbname(database)
            .application_name("iam-standin")
            .connect(NoTls)
            .await?;
        // Ends when the client is dropped.
        tokio::spawn(connection);
        Ok(client)
    }

    /// Runs statements as superuser; gives the rows of all of them as text.
    pub(super) async fn execute(&self, sql: &str) -> Result<Vec<Vec<Option<String>>>, Error> {
        if self.is_frozen().await {
            return Err(Error::Frozen(self.name.clone()));
        }
        let failed = |source| Error::Sql { server: self.name.clone(), source };
        let messages = self.superuser().await.map_err(failed)?.simple_query(sql).await.map_err(failed)?;
        let rows = messages.into_iter().filter_map(|message| match message {
            SimpleQueryMessage::Row(row) => {
                Some((0..row.len()).map(|column| row.get(column).map(str::to_owned)).collect())
            }
            _ => None,
        });
        Ok(rows.collect())
    }

    /// The single value that a statement gives; empty if it is null or there is none.
    pub(super) async fn value(&self, sql: &str) -> Result<String, Error> {
        let rows = self.execute(sql).await?;
        Ok(rows.into_iter().flatten().next().flatten().unwrap_or_default())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

impl Running {
    fn thaw(&mut self) -> Result<(), process::Error> {
        let Some(children) = self.frozen.take() else { return Ok(()) };
        for child in children.into_iter().rev() {
            send_signal(child, Signal::CONT)?;
        }
        self.process.as_mut().map_or(Ok(()), |postmaster| postmaster.signal(Signal::CONT))
    }
}

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

fn make_folder(path: &Path, mode: u32, owner: Option<&Account>) -> Result<(), process::Error> {
    let outcome = fs::create_dir(path).and_then(|()| give(path, mode, owner));
    outcome.map_err(process::Error::io(format!("make the folder {}", path.display())))
}

/// Written anew, so that a server never reads half of it with the old rights.
pub(super) fn write(
    path: &Path,
    text: &str,
    mode: u32,
    owner: Option<&Account>,
) -> Result<(), process::Error> {
    let fresh = path.with_extension("new");
    // Closed to others from the first byte on: it may be a key.
    let open = || File::options().write(true).create(true).truncate(true).mode(0o600).open(&fresh);
    let written = open()
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .and_then(|()| give(&fresh, mode, owner))
        .and_then(|()| fs::rename(&fresh, path));
    written.map_err(process::Error::io(format!("write {}", path.display())))
}

fn give(path: &Path, mode: u32, owner: Option<&Account>) -> io::Result<()> {
    fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
    owner.map_or(Ok(()), |Account { uid, gid }| chown(path, Some(*uid), Some(*gid)))
}
