//! An Envoy that runs, in a folder of its own.

use std::{
    collections::BTreeMap,
    fs, io,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use serde_json::Value;
use tempfile::TempDir;

use super::{EnvoyBinary, EnvoyConfig, Host};
use crate::{
    process::{Account, Error, Launch, Process, Signal, free_port, tail},
    testbed::start::{STARTS, own_folder, port_was_taken},
    tools::guardian::Guardian,
};

/// How long a start and an answer may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// A running Envoy. Dropping it kills it and removes its folder.
#[derive(Debug)]
pub struct Envoy {
    process: Process,
    ports: BTreeMap<String, u16>,
    account: Option<Account>,
    program: PathBuf,
    // After all that uses it.
    folder: TempDir,
    // Last: it looks at what is left of the folder.
    _guardian: Guardian,
}

impl Envoy {
    /// Starts it as an unprivileged user, and waits until it takes sessions.
    ///
    /// # Errors
    /// [`Error::Ended`] with what Envoy printed about its configuration.
    pub async fn start(binary: &EnvoyBinary, config: EnvoyConfig) -> Result<Self, Error> {
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
        binary: &EnvoyBinary,
        config: &EnvoyConfig,
        account: Option<Account>,
    ) -> Result<Self, Error> {
        let folder = own_folder("envoy", account.as_ref()).map_err(Error::io("make a folder for Envoy"))?;
        let path = folder.path();
        let guardian = Guardian::watch(path)?;
        let program = binary.runnable_in(path)?;
        let mut ports = BTreeMap::new();
        for listener in config.listeners() {
            ports.insert(listener, free_port()?);
        }
        let file = path.join("envoy.json");
        let written = fs::write(&file, config.text(path, &ports));
        written.map_err(Error::io(format!("write {}", file.display())))?;

        let process = launch(&program, path, account.as_ref())?;
        let mut envoy = Self { process, ports, account, program, folder, _guardian: guardian };
        envoy.serves().await?;
        Ok(envoy)
    }

    /// Ready is when all clusters have endpoints, or were waited for long enough; listeners
    /// take sessions from then on.
    async fn serves(&mut self) -> Result<(), Error> {
        let socket = self.admin_socket();
        let look = async || match ask(&socket, "/ready").await {
            Ok((200, _)) => Ok(()),
            Ok((status, said)) => Err(format!("{status} {}", said.trim())),
            Err(error) => Err(error.to_string()),
        };
        self.process.ready("Envoy to serve", PATIENCE, look).await
    }

    // === what it is ===

    /// Where a listener listens.
    ///
    /// # Panics
    /// There is no listener of this name: the test is wrong.
    #[allow(clippy::expect_used)]
    pub fn address(&self, listener: &str) -> SocketAddr {
        let port = self.ports.get(listener).expect("a listener of the configuration");
        (Ipv4Addr::LOCALHOST, *port).into()
    }

    /// The socket of its admin interface.
    pub fn admin_socket(&self) -> PathBuf {
        self.folder.path().join("admin.sock")
    }

    /// The file with its sessions, a JSON object a line.
    pub fn sessions_log(&self) -> PathBuf {
        self.folder.path().join("database.json")
    }

    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// The end of what it printed, for failure messages.
    pub fn said(&self) -> String {
        tail(self.process.log())
    }

    // === talking to it ===

    /// A path of its admin interface.
    ///
    /// # Errors
    /// [`Error::Io`] if there is no answer, or another one than 200.
    pub async fn admin(&self, path: &str) -> Result<String, Error> {
        let what = format!("ask Envoy for {path}");
        match ask(&self.admin_socket(), path).await {
            Ok((200, said)) => Ok(said),
            Ok((status, said)) => {
                Err(Error::Io { what, source: io::Error::other(format!("{status} {said}")) })
            }
            Err(error) => Err(Error::Io { what, source: io::Error::other(error) }),
        }
    }

    /// The same, where the answer is JSON.
    pub async fn admin_json(&self, path: &str) -> Result<Value, Error> {
        let said = self.admin(path).await?;
        serde_json::from_str(&said).map_err(io::Error::from).map_err(Error::io(format!("read {path}")))
    }

    /// The endpoints of a cluster, in the order of their addresses.
    pub async fn hosts(&self, cluster: &str) -> Result<Vec<Host>, Error> {
        Ok(Host::of(cluster, &self.admin_json("/clusters?format=json").await?))
    }

    /// A counter or gauge by its whole name.
    pub async fn stat(&self, name: &str) -> Result<u64, Error> {
        let said = self.admin(&format!("/stats?filter=^{name}$")).await?;
        let value = said.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": ")?.parse().ok());
        value.ok_or_else(|| Error::Io {
            what: format!("find the statistic {name}"),
            source: io::Error::new(io::ErrorKind::NotFound, said),
        })
    }

    // === changing it ===

    /// Ends it with its sessions (SIGTERM), and waits for that.
    pub async fn stop(&mut self) -> Result<(), Error> {
        self.process.stop(Signal::TERM, PATIENCE).await.map(drop)
    }

    /// Starts it again on the same ports after [`stop`](Self::stop) or [`kill`](Self::kill).
    pub async fn start_again(&mut self) -> Result<(), Error> {
        self.process = launch(&self.program, self.folder.path(), self.account.as_ref())?;
        self.serves().await
    }

    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Sends it a signal: `STOP` and `CONT` freeze and thaw it.
    pub fn signal(&mut self, signal: Signal) -> Result<(), Error> {
        self.process.signal(signal)
    }
}

async fn ask(socket: &Path, path: &str) -> reqwest::Result<(u16, String)> {
    let client = reqwest::Client::builder().unix_socket(socket).no_proxy().timeout(PATIENCE).build()?;
    let answer = client.get(format!("http://admin{path}")).send().await?;
    Ok((answer.status().as_u16(), answer.text().await?))
}

fn launch(program: &Path, folder: &Path, account: Option<&Account>) -> Result<Process, Error> {
    Launch::new("envoy", program, folder)
        .account(account)
        // Two workers, as on a small machine; no shared memory with other Envoys of the machine.
        .args(["--concurrency", "2", "--disable-hot-restart", "--drain-time-s", "1"])
        // Every session's last line is in the file soon after it ended.
        .args(["--file-flush-interval-msec", "200"])
        .args(["--log-level", "warning", "-c"])
        .arg(folder.join("envoy.json"))
        .spawn()
}
