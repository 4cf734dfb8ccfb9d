//! The real agent as a process: its configuration, its life, what it says.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::ExitStatus,
    time::Duration,
};

use serde_json::Value;
use tempfile::TempDir;

use super::{Error, PATIENCE, Proxy, SessionLog, Setting};
use crate::{
    process::{Account, Launch, Process, Signal, free_port},
    standin::{Engine, StandIn},
};

/// Where one agent listens and keeps its files. Dropped with its folder.
#[derive(Debug)]
pub struct Files {
    folder: TempDir,
    pub agent_check: SocketAddr,
    pub http: SocketAddr,
    /// For HAProxy's log by UDP.
    pub log: SocketAddr,
}

impl Files {
    /// Free ports and a folder that the unprivileged agent owns.
    pub fn new(_setting: &Setting) -> Result<Self, Error> {
        let folder = tempfile::Builder::new().prefix("rds-lb-agent-").tempdir()?;
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755))?;
        let state = folder.path().join("state");
        fs::create_dir(&state)?;
        if let Some(account) = Account::unprivileged()? {
            for path in [folder.path(), &state] {
                std::os::unix::fs::chown(path, Some(account.uid), Some(account.gid))?;
            }
        }
        let address = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let (agent_check, http, log) = (address(free_port()?), address(free_port()?), address(free_port()?));
        Ok(Self { folder, agent_check, http, log })
    }

    /// HAProxy's server state file.
    pub fn server_state(&self) -> PathBuf {
        self.folder.path().join("server-state")
    }

    /// The socket for an Envoy.
    pub fn envoy(&self) -> PathBuf {
        self.folder.path().join("envoy.sock")
    }

    /// Where HAProxy sends its log.
    pub fn session_log(&self, kind: SessionLog) -> String {
        match kind {
            SessionLog::Udp | SessionLog::Tcplog => self.log.to_string(),
            SessionLog::Unix => self.folder.path().join("log.sock").display().to_string(),
        }
    }
}

#[derive(Debug)]
pub struct Agent {
    files: Files,
    process: Option<Process>,
    /// Variables it is started with: where its credentials come from.
    pub environment: Vec<(String, String)>,
}

impl Agent {
    /// One that is not started, without a configuration.
    pub fn new(files: Files) -> Self {
        Self { files, process: None, environment: Vec::new() }
    }

    /// The binary, built beside this one.
    pub fn binary() -> PathBuf {
        let own = std::env::current_exe().unwrap_or_default();
        let folder = own.ancestors().skip(1).find(|folder| folder.join("rds-lb-agent").is_file());
        folder.unwrap_or(Path::new(".")).join("rds-lb-agent")
    }

    pub fn folder(&self) -> &Path {
        self.files.folder.path()
    }

    pub fn config_file(&self) -> PathBuf {
        self.folder().join("config.yaml")
    }

    pub fn state_dir(&self) -> PathBuf {
        self.folder().join("state")
    }

    pub fn control(&self) -> PathBuf {
        self.folder().join("control.sock")
    }

    /// The socket that Envoys call.
    pub fn envoy(&self) -> PathBuf {
        self.files.envoy()
    }

    /// The port for agent checks.
    pub fn agent_check(&self) -> SocketAddr {
        self.files.agent_check
    }

    /// The address for HAProxy's log by UDP.
    pub fn log_address(&self) -> SocketAddr {
        self.files.log
    }

    /// The port for HTTP.
    pub fn http(&self) -> SocketAddr {
        self.files.http
    }

    /// The configuration of a scene.
    pub fn config_for<P: Proxy>(&self, standin: &StandIn, proxy: &P, setting: &Setting) -> String {
        let instances: Vec<String> = standin
            .servers()
            .iter()
            .map(|server| {
                format!(
                    "      - {{name: {}, endpoint: \"{}:{}\", connect: \"{}\"}}",
                    server.name(),
                    server.endpoint(),
                    server.connect().port(),
                    server.connect()
                )
            })
            .collect();
        // MySQL's agent needs no database of the applications, and has no right to any.
        let (engine, logged_in_to) = match standin.engine() {
            Engine::Postgresql => ("postgresql", "    database_name: orders\n"),
            Engine::Mariadb => ("mariadb", ""),
        };
        format!(
            "databases:\n  - name: orders\n    engine: {engine}\n    user: {user}\n{logged_in_to}    \
             ca_file: \"{ca}\"\n{extra}    instances:\n{instances}\n\
             proxies:\n{proxies}\
             sessions: {sessions}\nlisten: {{agent_check: \"{check}\", http: \"{http}\", control: \"{control}\", envoy: \"{envoy}\"}}\n\
             state_dir: \"{state}\"\n{more}",
            user = setting.user,
            ca = standin.ca_file().display(),
            extra = setting.database,
            instances = instances.join("\n"),
            proxies = proxy.entry(standin, &self.files, setting),
            envoy = self.files.envoy().display(),
            sessions = setting.sessions,
            check = self.files.agent_check,
            http = self.files.http,
            control = self.control().display(),
            state = self.state_dir().display(),
            more = setting.more,
        )
    }

    /// Replaces the configuration file at once, as an editor does.
    pub fn write_config(&self, text: &str) -> Result<(), Error> {
        let new = self.folder().join("config.new");
        fs::write(&new, text)?;
        fs::rename(&new, self.config_file())?;
        Ok(())
    }

    /// Starts it and waits until it answers.
    pub async fn start(&mut self) -> Result<(), Error> {
        self.spawn()?;
        let http = self.files.http;
        if let Some(process) = &mut self.process {
            process
                .ready("the agent to answer", PATIENCE, async || {
                    let url = format!("http://{http}/livez");
                    match reqwest::Client::builder().no_proxy().build() {
                        Ok(client) => {
                            client.get(url).send().await.map(drop).map_err(|error| error.to_string())
                        }
                        Err(error) => Err(error.to_string()),
                    }
                })
                .await?;
        }
        Ok(())
    }

    /// Starts it and does not wait.
    pub fn spawn(&mut self) -> Result<(), Error> {
        let config = self.config_file();
        let launch = Launch::new("agent", Self::binary(), self.folder())
            .clean_environment()
            .args(["run", "--config"])
            .arg(&config)
            .envs(self.environment.clone())
            .unprivileged()?;
        self.process = Some(launch.spawn()?);
        Ok(())
    }

    /// Waits for its end.
    pub async fn ended(&mut self) -> Result<Option<ExitStatus>, Error> {
        match &mut self.process {
            Some(process) => Ok(Some(process.ended(PATIENCE).await?)),
            None => Ok(None),
        }
    }

    /// Kills it as `kill -9` does.
    pub fn kill(&mut self) {
        if let Some(process) = &mut self.process {
            process.kill();
        }
        self.process = None;
    }

    /// Asks it to stop, and waits until it has.
    pub async fn stop(&mut self) -> Result<(), Error> {
        if let Some(mut process) = self.process.take() {
            process.stop(Signal::TERM, PATIENCE).await?;
        }
        Ok(())
    }

    /// Sends it a signal.
    pub fn signal(&mut self, signal: Signal) -> Result<(), Error> {
        if let Some(process) = &mut self.process {
            process.signal(signal)?;
        }
        Ok(())
    }

    pub fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(Process::pid)
    }

    /// A path of its HTTP port: status and body.
    pub async fn get(&self, path: &str) -> Result<(u16, String), Error> {
        let client = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(5)).build()?;
        let answer = client.get(format!("http://{}{path}", self.files.http)).send().await?;
        Ok((answer.status().as_u16(), answer.text().await?))
    }

    /// The answer to `GET /debug/state`.
    pub async fn state(&self) -> Result<Value, Error> {
        let (_, body) = self.get("/debug/state").await?;
        Ok(serde_json::from_str(&body).unwrap_or_default())
    }

    /// A number of `/debug/state`, by its path; 0 where there is none.
    pub async fn number(&self, pointer: &str) -> f64 {
        let state = self.state().await.unwrap_or_default();
        state.pointer(pointer).and_then(Value::as_f64).unwrap_or(0.0)
    }

    /// What it has printed: the lines that are JSON.
    pub fn events(&self) -> Vec<Value> {
        self.log().lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// What it has printed, all of it.
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder().join("agent.log")).unwrap_or_default()
    }

    /// Runs another command of the binary with these arguments, by default with this agent's configuration file
    /// and control socket: exit code and output.
    pub async fn command(&self, arguments: &[&str]) -> Result<(i32, String, String), Error> {
        let output = tokio::process::Command::new(Self::binary())
            .args(arguments)
            .envs(self.environment.clone())
            .env("RDS_LB_AGENT_CONFIG", self.config_file())
            .env("RDS_LB_AGENT_CONTROL", self.control())
            .output()
            .await?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Ok((output.status.code().unwrap_or(-1), text(&output.stdout), text(&output.stderr)))
    }
}
