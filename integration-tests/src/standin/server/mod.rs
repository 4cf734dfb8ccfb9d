//! One server of a stand-in: its files, its process, its life.
//!
//! Which server is the writer and which replica follows which server is not known here; and what only one
//! engine has is in its own module.

mod driver;

use std::{
    fs::{self, File},
    io::{self, Write as _},
    net::{Ipv4Addr, SocketAddr},
    os::unix::fs::{OpenOptionsExt, PermissionsExt, chown},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::sync::Mutex;

use super::{Error, certificate::ServerCertificate, gate, programs::Programs};
use crate::process::{
    self, Account, Launch, Process, Signal, children_of, is_stopped, send_signal, wait_for,
};

pub(super) use self::driver::{Driver, Rows};

/// The database of the applications.
pub const DATABASE: &str = "orders";

/// How long a program may take to make a server, or a server to start.
pub(super) const START: Duration = Duration::from_secs(60);
const STOP: Duration = Duration::from_secs(20);
/// How long a server may take to follow, or to become the writer.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

/// How a server is stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopMode {
    /// Sessions are ended cleanly: PostgreSQL's read 57P01.
    Fast,
    /// As in a crash: sessions just end, and the next start recovers.
    Immediate,
}

/// What all servers of a stand-in share.
#[derive(Clone, Debug)]
pub(super) struct Common {
    pub(super) driver: &'static dyn Driver,
    /// Where its programs are.
    pub(super) programs: Programs,
    /// Who runs them; `None` is the user of this process.
    pub(super) account: Option<Account>,
    /// Where their output goes.
    pub(super) logs: PathBuf,
    /// Has `libpam.so.0`.
    pub(super) libraries: PathBuf,
    /// The data of a server with users and tables, which every server begins with.
    pub(super) template: PathBuf,
    /// Where tokens are judged.
    pub(super) gate: PathBuf,
    /// What the certificates are verified with.
    pub(super) ca_file: PathBuf,
    /// Of users that no client logs in as.
    pub(super) passwords: Passwords,
    /// Lines of the configuration file that are the same for all.
    pub(super) settings: String,
    /// The names of loopback addresses.
    pub(super) names: Vec<(Ipv4Addr, String)>,
}

/// Passwords that the servers keep among themselves.
#[derive(Clone, Debug)]
pub(super) struct Passwords {
    /// Of the user `replicator`.
    pub(super) replicator: String,
    /// Of the superuser, where the socket alone does not let it in.
    pub(super) superuser: String,
}

#[derive(Debug)]
pub struct Server {
    name: String,
    endpoint: String,
    connect: SocketAddr,
    folder: PathBuf,
    common: Arc<Common>,
    running: Mutex<Running>,
}

#[derive(Debug, Default)]
struct Running {
    process: Option<Process>,
    /// Children that were stopped after the server's own process, in that order.
    frozen: Option<Vec<u32>>,
}

impl Server {
    /// Lays out its folder; nothing is started.
    pub(super) fn new(
        common: Arc<Common>,
        folder: PathBuf,
        name: String,
        endpoint: String,
        connect: SocketAddr,
        certificate: &ServerCertificate,
    ) -> Result<Self, process::Error> {
        let (driver, account) = (common.driver, common.account.clone());
        let server = Self { name, endpoint, connect, folder, common, running: Mutex::default() };
        make_folder(&server.folder, 0o755, None)?;
        make_folder(&server.sockets(), 0o700, account.as_ref())?;
        write(&server.certificate_file(), &certificate.certificate, 0o644, None)?;
        write(&server.key_file(), &certificate.key, 0o600, account.as_ref())?;
        driver.lay_out(&server)?;
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

    /// The process id of the server itself, which others may be children of; `None` when it
    /// does not run.
    pub async fn pid(&self) -> Option<u32> {
        let mut running = self.running.lock().await;
        running.process.as_mut().and_then(Process::running_pid)
    }

    /// Whether it was frozen and not thawed yet.
    pub async fn is_frozen(&self) -> bool {
        self.running.lock().await.frozen.is_some()
    }

    // === its files ===

    pub(super) fn common(&self) -> &Common {
        &self.common
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    pub(super) fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    /// Replaces its data with the template's.
    pub(super) async fn copy_template(&self) -> Result<(), process::Error> {
        remove_folder(&self.data())?;
        copy_folder(&self.common.template, &self.data(), &self.common.logs).await
    }

    pub(super) fn sockets(&self) -> PathBuf {
        self.folder.join("socket")
    }

    pub(super) fn certificate_file(&self) -> PathBuf {
        self.folder.join("server.crt")
    }

    pub(super) fn key_file(&self) -> PathBuf {
        self.folder.join("server.key")
    }

    /// One of the engine's programs, in its folder and as its account.
    pub(super) fn launch(&self, program: &str) -> Launch {
        let common = &self.common;
        Launch::new(&format!("{}-{program}", self.name), common.programs.path(program), &common.logs)
            .clean_environment()
            .folder(&self.folder)
            // Client libraries would look for certificates in a home that they may not read.
            .env("HOME", &self.folder)
            .account(common.account.as_ref())
    }

    // === running it ===

    /// Starts it and waits until it takes connections.
    pub(super) async fn start(&self) -> Result<(), Error> {
        let mut running = self.running.lock().await;
        if running.process.as_mut().is_some_and(Process::is_running) {
            return Ok(());
        }
        let driver = self.common.driver;
        let process = driver
            .launch(self)
            .env("LD_LIBRARY_PATH", &self.common.libraries)
            .envs(gate::environment(&self.common.gate, &self.name))
            .spawn()?;
        running.frozen = None;
        let process = running.process.insert(process);
        let what = format!("server {} to take connections", self.name);
        process.ready(&what, START, || async { driver.execute(self, "SELECT 1").await.map(drop) }).await?;
        Ok(())
    }

    /// Stops it and waits for its end; a frozen one is thawed first.
    pub(super) async fn stop(&self, mode: StopMode) -> Result<(), Error> {
        let mut running = self.running.lock().await;
        running.thaw()?;
        if let Some(mut process) = running.process.take() {
            process.stop(self.common.driver.signal(mode), STOP).await?;
        }
        Ok(())
    }

    /// Sends it a signal, if it runs.
    pub(super) async fn send(&self, signal: Signal) -> Result<(), Error> {
        if let Some(process) = &mut self.running.lock().await.process {
            process.signal(signal)?;
        }
        Ok(())
    }

    /// Waits for the end of a server that was asked to shut down.
    pub(super) async fn ended_within(&self, patience: Duration) -> Result<(), Error> {
        if let Some(process) = &mut self.running.lock().await.process {
            process.ended(patience).await?;
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
        let Some(first) = running.process.as_mut().and_then(Process::running_pid) else {
            return Err(Error::NotRunning(self.name.clone()));
        };
        // PostgreSQL's postmaster first: it makes no more children. Each of those has a process
        // group of its own, so they are stopped one by one.
        send_signal(first, Signal::STOP)?;
        let what = format!("the process of server {} to stop", self.name);
        let stopped = || async { is_stopped(first).then_some(()).ok_or("it runs") };
        let stopped = wait_for(&what, STOP, stopped).await;
        let children = children_of(first);
        for child in &children {
            send_signal(*child, Signal::STOP)?;
        }
        running.frozen = Some(children);
        Ok(stopped?)
    }

    /// Resumes a frozen server; does nothing to any other.
    pub(super) async fn thaw(&self) -> Result<(), Error> {
        Ok(self.running.lock().await.thaw()?)
    }

    /// Stops it without waiting for anything but its end.
    fn kill(&mut self) {
        let running = self.running.get_mut();
        let _ = running.thaw();
        let Some(mut process) = running.process.take() else { return };
        let _ = process.signal(self.common.driver.signal(StopMode::Immediate));
        // PostgreSQL's postmaster itself kills children that do not end within five seconds.
        let deadline = Instant::now() + Duration::from_secs(8);
        while process.is_running() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    // === asking it ===

    /// Runs statements as superuser; gives the rows of all of them as text.
    pub(super) async fn execute(&self, sql: &str) -> Result<Rows, Error> {
        if self.is_frozen().await {
            return Err(Error::Frozen(self.name.clone()));
        }
        let outcome = self.common.driver.execute(self, sql).await;
        outcome.map_err(|source| Error::Sql { server: self.name.clone(), source })
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
        self.process.as_mut().map_or(Ok(()), |process| process.signal(Signal::CONT))
    }
}

pub(super) fn make_folder(path: &Path, mode: u32, owner: Option<&Account>) -> Result<(), process::Error> {
    let outcome = fs::create_dir(path).and_then(|()| give(path, mode, owner));
    outcome.map_err(process::Error::io(format!("make the folder {}", path.display())))
}

/// A copy with owners and rights, as a file system can share it.
pub(super) async fn copy_folder(from: &Path, to: &Path, logs: &Path) -> Result<(), process::Error> {
    let name = to.display().to_string().replace('/', "-");
    Launch::new(&format!("copy{name}"), "cp", logs)
        .args(["-a", "--reflink=auto"])
        .arg(from)
        .arg(to)
        .run(START)
        .await?;
    Ok(())
}

/// One that is not there is no error.
pub(super) fn remove_folder(path: &Path) -> Result<(), process::Error> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(process::Error::io(format!("remove {}", path.display()))(error))
        }
        _ => Ok(()),
    }
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
