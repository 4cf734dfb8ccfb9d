//! A HAProxy that runs, in a folder of its own.

use std::{
    collections::BTreeMap,
    fs, io,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
    time::timeout,
};

use super::{HaproxyBinary, HaproxyConfig, Logged, Version, config::Place};
use crate::{
    process::{Account, Error, Launch, Process, Signal, children_of, free_port, send_signal, wait_for},
    testbed::start::{STARTS, own_folder, port_was_taken},
    tools::guardian::Guardian,
};

/// How long a start, a reload and a command may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// A running HAProxy, master and workers. Dropping it kills them and removes its folder.
#[derive(Debug)]
pub struct Haproxy {
    master: Process,
    ports: BTreeMap<String, u16>,
    tcp_stats: Option<SocketAddr>,
    version: Version,
    logged: Logged,
    account: Option<Account>,
    program: PathBuf,
    // After all that uses it.
    folder: TempDir,
    // Last: it looks at what is left of the folder.
    _guardian: Guardian,
}

impl Haproxy {
    /// Starts it as an unprivileged user, and waits until it serves.
    ///
    /// # Errors
    /// [`Error::Ended`] with what HAProxy printed about its configuration.
    pub async fn start(binary: &HaproxyBinary, config: HaproxyConfig) -> Result<Self, Error> {
        let account = Account::unprivileged()?;
        let mut tries = 1;
        loop {
            match Self::start_once(binary, &config, account.clone()).await {
                Err(error) if port_was_taken(&error) && tries < STARTS => tries += 1,
                done => return done,
            }
        }
    }

    async fn start_once(
        binary: &HaproxyBinary,
        config: &HaproxyConfig,
        account: Option<Account>,
    ) -> Result<Self, Error> {
        let folder =
            own_folder("haproxy", account.as_ref()).map_err(Error::io("make a folder for HAProxy"))?;
        let path = folder.path();
        let guardian = Guardian::watch(path)?;
        let program = binary.runnable_in(path)?;
        let logged = Logged::at(&path.join("log.sock")).map_err(Error::io("collect HAProxy's log"))?;

        let mut ports = BTreeMap::new();
        for (frontend, _) in &config.frontends {
            ports.insert(frontend.clone(), free_port()?);
        }
        let tcp_stats = config.tcp_stats.then(free_port).transpose()?;
        let tcp_stats = tcp_stats.map(|port| (Ipv4Addr::LOCALHOST, port).into());
        let text = config.text(&Place { folder: path, ports: &ports, tcp_stats });
        let file = path.join("haproxy.cfg");
        fs::write(&file, text).map_err(Error::io(format!("write {}", file.display())))?;

        let master = launch(&program, path, account.as_ref())?;
        let version = binary.version().clone();
        let mut haproxy =
            Self { master, ports, tcp_stats, version, logged, account, program, folder, _guardian: guardian };
        haproxy.serves().await?;
        Ok(haproxy)
    }

    /// Listeners are bound before the first worker begins, so one that answers serves. The
    /// master opens its own socket a little later.
    async fn serves(&mut self) -> Result<(), Error> {
        let (worker, master) = (self.admin_socket(), self.master_socket());
        let look = async || {
            ask(&worker, "show info").await?;
            ask(&master, "show proc").await.map(drop)
        };
        self.master.ready("HAProxy to serve", PATIENCE, look).await
    }

    // === what it is ===

    /// Where a frontend listens.
    ///
    /// # Panics
    /// There is no frontend of this name: the test is wrong.
    #[allow(clippy::expect_used)]
    pub fn address(&self, frontend: &str) -> SocketAddr {
        let port = self.ports.get(frontend).expect("a frontend of the configuration");
        (Ipv4Addr::LOCALHOST, *port).into()
    }

    /// The stats socket at level admin.
    pub fn admin_socket(&self) -> PathBuf {
        self.socket("admin")
    }

    /// The Unix socket of a frontend.
    pub fn front_socket(&self, frontend: &str) -> PathBuf {
        self.admin_socket().with_file_name(format!("{frontend}.sock"))
    }

    /// The master process's socket (`-S`).
    pub fn master_socket(&self) -> PathBuf {
        self.socket("master")
    }

    /// A socket of [`HaproxyConfig::stats_socket`].
    pub fn socket(&self, name: &str) -> PathBuf {
        self.folder.path().join(format!("{name}.sock"))
    }

    /// The stats socket on TCP, if the configuration asks for one.
    pub fn tcp_stats(&self) -> Option<SocketAddr> {
        self.tcp_stats
    }

    /// Its `haproxy.cfg`, which a test may change before a reload.
    pub fn config_file(&self) -> PathBuf {
        self.folder.path().join("haproxy.cfg")
    }

    /// Which HAProxy it is.
    pub fn version(&self) -> &Version {
        &self.version
    }

    /// What it logged: sessions, and servers that go up and down.
    pub fn logged(&self) -> &Logged {
        &self.logged
    }

    /// The pid of the master process.
    pub fn pid(&self) -> u32 {
        self.master.pid()
    }

    // === talking to it ===

    /// Sends one command to the stats socket, and gives back all of the answer.
    pub async fn cli(&self, command: &str) -> Result<String, Error> {
        ask(&self.admin_socket(), command).await
    }

    /// As [`cli`](Self::cli), on the master socket: `show proc`, `@!PID show sess`.
    pub async fn master_cli(&self, command: &str) -> Result<String, Error> {
        ask(&self.master_socket(), command).await
    }

    /// The pids of the workers: the present one, and old ones that still have sessions.
    pub async fn workers(&self) -> Result<(Vec<u32>, Vec<u32>), Error> {
        let table = self.master_cli("show proc").await?;
        let (present, old) = table.split_once("# old workers").unwrap_or((&table, ""));
        let pids = |part: &str| -> Vec<u32> {
            let rows = part.lines().filter(|row| row.split_whitespace().nth(1) == Some("worker"));
            rows.filter_map(|row| row.split_whitespace().next()?.parse().ok()).collect()
        };
        Ok((pids(present), pids(old)))
    }

    /// The administrative bits of a server, as in `show servers state` (`srv_admin_state`).
    pub async fn admin_bits(&self, backend: &str, server: &str) -> Result<u8, Error> {
        self.state_field(backend, server, 6).await
    }

    /// The operational state of a server (`srv_op_state`): 0 stopped, 2 running.
    pub async fn operational_state(&self, backend: &str, server: &str) -> Result<u8, Error> {
        self.state_field(backend, server, 5).await
    }

    async fn state_field(&self, backend: &str, server: &str, column: usize) -> Result<u8, Error> {
        let table = self.cli("show servers state").await?;
        let rows = table.lines().map(|row| row.split(' ').collect::<Vec<_>>());
        let found = rows
            .filter(|row| row.get(1) == Some(&backend) && row.get(3) == Some(&server))
            .find_map(|row| row.get(column)?.parse().ok());
        found.ok_or_else(|| Error::Io {
            what: format!("read the state of {backend}/{server}"),
            source: io::Error::new(io::ErrorKind::NotFound, table),
        })
    }

    /// Writes the present state of all servers where the next reload looks for it.
    pub async fn save_server_state(&self) -> Result<(), Error> {
        let file = self.folder.path().join("server-state");
        let state = self.cli("show servers state").await?;
        fs::write(&file, state).map_err(Error::io(format!("write {}", file.display())))
    }

    // === changing it ===

    /// Reloads (SIGUSR2), and waits until a new worker serves. Old sessions go on in the old one.
    pub async fn reload(&mut self) -> Result<(), Error> {
        let (before, _) = self.workers().await?;
        self.master.signal(Signal::USR2)?;
        wait_for("a new worker", PATIENCE, async || {
            let (present, _) = self.workers().await?;
            let info = self.cli("show info").await?;
            let serving = info.lines().find_map(|line| line.strip_prefix("Pid: ")?.parse().ok());
            match serving {
                Some(pid) if present.contains(&pid) && !before.contains(&pid) => Ok(()),
                _ => Err(Error::io(format!("workers {present:?}, serving {serving:?}"))(
                    io::ErrorKind::WouldBlock.into(),
                )),
            }
        })
        .await
    }

    /// Ends it with its sessions (SIGTERM), and waits for that.
    pub async fn stop(&mut self) -> Result<(), Error> {
        self.master.stop(Signal::TERM, PATIENCE).await.map(drop)
    }

    /// Starts it again on the same ports after [`stop`](Self::stop) or [`kill`](Self::kill).
    pub async fn start_again(&mut self) -> Result<(), Error> {
        self.master = launch(&self.program, self.folder.path(), self.account.as_ref())?;
        self.serves().await
    }

    /// Kills it (SIGKILL), workers too.
    pub fn kill(&mut self) {
        let workers = self.children();
        self.master.kill();
        for worker in workers {
            let _ = send_signal(worker, Signal::KILL);
        }
    }

    /// Sends a signal to the master and to its workers: `STOP` and `CONT` freeze and thaw it.
    pub fn signal(&mut self, signal: Signal) -> Result<(), Error> {
        for worker in self.children() {
            send_signal(worker, signal)?;
        }
        self.master.signal(signal)
    }

    /// Its workers, while it runs: the pid of a master that ended may be another's by now.
    fn children(&mut self) -> Vec<u32> {
        if self.master.is_running() { children_of(self.master.pid()) } else { Vec::new() }
    }
}

impl Drop for Haproxy {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Sends one command to a stats or master socket, and gives back all of the answer.
///
/// # Errors
/// [`Error::Io`] if there is no answer within 10 s.
pub async fn ask(socket: &Path, command: &str) -> Result<String, Error> {
    let exchange = async {
        let mut stream = UnixStream::connect(socket).await?;
        stream.write_all(format!("{command}\n").as_bytes()).await?;
        // A master socket stays open for more commands until the client half-closes it.
        stream.shutdown().await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        Ok(answer)
    };
    let answered = timeout(PATIENCE, exchange).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
    answered.map_err(Error::io(format!("send {command:?} to {}", socket.display())))
}

fn launch(program: &Path, folder: &Path, account: Option<&Account>) -> Result<Process, Error> {
    Launch::new("haproxy", program, folder)
        .account(account)
        .arg("-W")
        .arg("-S")
        .arg(folder.join("master.sock"))
        .arg("-f")
        .arg(folder.join("haproxy.cfg"))
        .spawn()
}
