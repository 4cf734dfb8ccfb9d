//! Real programs for a test: free ports, starting them unprivileged, waiting, stopping.
//!
//! Every program that is started here dies with the test process, however that ends,
//! and is killed when its [`Process`] is dropped. What it prints goes into a log file,
//! whose end is part of every failure message.
//!
//! Not a supervisor: nothing is restarted, and a program is known by its pid, never by
//! its name.

use std::{
    env,
    ffi::{OsStr, OsString},
    fmt::Display,
    fs::{self, File},
    future::Future,
    io,
    net::{IpAddr, Ipv4Addr, TcpListener},
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{LazyLock, mpsc},
    thread,
    time::{Duration, Instant},
};

pub use rustix::process::Signal;
use rustix::process::{Pid, geteuid, kill_process};

/// How often a condition is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// How much of a log goes into a failure message.
const LOG_TAIL_LINES: usize = 25;

/// Why a program could not be started, or did not do what was waited for.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The machine's fault: a file, a port or a program that is missing or denied.
    #[error("{what}: {source}")]
    Io {
        /// What was tried, and on what.
        what: String,
        /// What the system said.
        source: io::Error,
    },
    /// The program ended with an error, or ended though it should run.
    #[error("{name} ended with {status}; the end of its output:\n{log}")]
    Ended {
        /// The name given to [`Launch::new`].
        name: String,
        /// Its exit code or signal.
        status: String,
        /// The last lines that it printed.
        log: String,
    },
    /// The deadline passed.
    #[error("waited {waited:.1?} for {what}; last seen: {last_seen}")]
    Deadline {
        /// The condition.
        what: String,
        /// How long it was waited for.
        waited: Duration,
        /// Why it was not yet so when last looked at.
        last_seen: String,
    },
}

impl Error {
    /// Names what was tried when the system refused it: `.map_err(Error::io("open x"))`.
    pub fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Error {
        let what = what.into();
        move |source| Error::Io { what, source }
    }
}

// === waiting ===

/// Waits until `look` succeeds, looking every 20 ms; its error says why not yet.
///
/// # Errors
/// [`Error::Deadline`] with the last reason when `patience` is over. A look that hangs is
/// abandoned at the deadline too.
pub async fn wait_for<T, E, F, L>(what: &str, patience: Duration, mut look: L) -> Result<T, Error>
where
    E: Display,
    F: Future<Output = Result<T, E>>,
    L: FnMut() -> F,
{
    let began = Instant::now();
    let mut last_seen = "nothing: the first look did not return".to_owned();
    loop {
        let left = patience.saturating_sub(began.elapsed());
        // A look that hangs leaves the reason of the one before.
        if let Ok(looked) = tokio::time::timeout(left, look()).await {
            match looked {
                Ok(found) => return Ok(found),
                Err(not_yet) => last_seen = not_yet.to_string(),
            }
        }
        if began.elapsed() >= patience {
            return Err(Error::Deadline { what: what.to_owned(), waited: began.elapsed(), last_seen });
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

// === ports ===

/// A TCP port that is free now on the loopback address 127.0.0.1.
pub fn free_port() -> Result<u16, Error> {
    free_port_on(&[IpAddr::V4(Ipv4Addr::LOCALHOST)])
}

/// One TCP port that is free now on every one of the addresses.
pub fn free_port_on(addresses: &[IpAddr]) -> Result<u16, Error> {
    const TRIES: usize = 50;
    let mut refused = io::Error::other("no address given");
    for _ in 0..TRIES {
        match same_port(addresses) {
            Ok(port) => return Ok(port),
            Err(error) => refused = error,
        }
    }
    Err(Error::Io { what: format!("find a port that is free on {addresses:?}"), source: refused })
}

fn same_port(addresses: &[IpAddr]) -> io::Result<u16> {
    let mut port = 0;
    // All are held until the last is found, so that they are free together.
    let mut held = Vec::with_capacity(addresses.len());
    for address in addresses {
        let listener = TcpListener::bind((*address, port))?;
        port = listener.local_addr()?.port();
        held.push(listener);
    }
    Ok(port)
}

// === who runs it ===

/// A user without rights, for programs that refuse to be root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// Its user id.
    pub uid: u32,
    /// Its group id.
    pub gid: u32,
}

impl Account {
    /// The account that programs started with [`Launch::unprivileged`] run as: `None` when
    /// this process is not root (they run as itself), else `nobody`.
    pub fn unprivileged() -> Result<Option<Account>, Error> {
        if !geteuid().is_root() {
            return Ok(None);
        }
        let what = "read the ids of the user nobody";
        let passwd = fs::read_to_string("/etc/passwd").map_err(Error::io(what))?;
        let account = passwd.lines().find_map(|line| {
            let mut fields = line.split(':');
            (fields.next() == Some("nobody")).then_some(())?;
            Some(Account { uid: fields.nth(1)?.parse().ok()?, gid: fields.next()?.parse().ok()? })
        });
        account
            .map(Some)
            .ok_or_else(|| Error::Io { what: what.to_owned(), source: io::ErrorKind::NotFound.into() })
    }
}

// === starting ===

/// A program that is about to be started.
#[derive(Debug)]
pub struct Launch {
    name: String,
    program: PathBuf,
    arguments: Vec<OsString>,
    environment: Vec<(OsString, OsString)>,
    inherits: bool,
    folder: Option<PathBuf>,
    account: Option<Account>,
    dies_by: &'static str,
    log: PathBuf,
}

impl Launch {
    /// `name` is for people; what the program prints is appended to `folder/name.log`.
    pub fn new(name: &str, program: impl AsRef<Path>, folder: &Path) -> Self {
        Self {
            name: name.to_owned(),
            program: program.as_ref().to_owned(),
            arguments: Vec::new(),
            environment: Vec::new(),
            inherits: true,
            folder: None,
            account: None,
            dies_by: "KILL",
            log: folder.join(format!("{name}.log")),
        }
    }

    /// Adds one argument.
    #[must_use]
    pub fn arg(mut self, argument: impl AsRef<OsStr>) -> Self {
        self.arguments.push(argument.as_ref().to_owned());
        self
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<A: AsRef<OsStr>>(mut self, arguments: impl IntoIterator<Item = A>) -> Self {
        self.arguments.extend(arguments.into_iter().map(|argument| argument.as_ref().to_owned()));
        self
    }

    /// Sets an environment variable.
    #[must_use]
    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.environment.push((name.as_ref().to_owned(), value.as_ref().to_owned()));
        self
    }

    /// Sets environment variables.
    #[must_use]
    pub fn envs<N: AsRef<OsStr>, V: AsRef<OsStr>>(self, variables: impl IntoIterator<Item = (N, V)>) -> Self {
        variables.into_iter().fold(self, |launch, (name, value)| launch.env(name, value))
    }

    /// Starts it in this folder; if not said, in this process's.
    #[must_use]
    pub fn folder(mut self, folder: &Path) -> Self {
        self.folder = Some(folder.to_owned());
        self
    }

    /// Starts it without this process's environment, except for `PATH`, and in English.
    #[must_use]
    pub fn clean_environment(mut self) -> Self {
        self.inherits = false;
        self.env("LC_ALL", "C")
    }

    /// Runs it as this account; `None` as the user of this process.
    #[must_use]
    pub fn account(mut self, account: Option<&Account>) -> Self {
        self.account = account.cloned();
        self
    }

    /// Runs it as an unprivileged user if this process is root.
    pub fn unprivileged(self) -> Result<Self, Error> {
        let account = Account::unprivileged()?;
        Ok(self.account(account.as_ref()))
    }

    /// The signal that the kernel sends it when this process dies; `KILL` if not said.
    /// The name is without `SIG`, as `setpriv` takes it.
    #[must_use]
    pub fn dies_by(mut self, signal: &'static str) -> Self {
        self.dies_by = signal;
        self
    }

    /// Starts it.
    ///
    /// # Errors
    /// [`Error::Io`] if `setpriv` is missing or the log cannot be written. A program that is
    /// missing shows as [`Error::Ended`] when it is waited for.
    pub fn spawn(self) -> Result<Process, Error> {
        let opened = |path: &Path| File::options().create(true).append(true).open(path);
        let log = opened(&self.log).map_err(Error::io(format!("write {}", self.log.display())))?;
        let second = log.try_clone().map_err(Error::io(format!("write {}", self.log.display())))?;

        // setpriv, and not su or runuser: those link libpam, and reset the environment.
        let mut command = Command::new("setpriv");
        if let Some(Account { uid, gid }) = self.account {
            command.arg(format!("--reuid={uid}")).arg(format!("--regid={gid}")).arg("--clear-groups");
        }
        if !self.inherits {
            command.env_clear().envs(env::var_os("PATH").map(|path| ("PATH", path)));
        }
        if let Some(folder) = &self.folder {
            command.current_dir(folder);
        }
        command.arg(format!("--pdeathsig={}", self.dies_by)).arg("--").arg(&self.program);
        command.args(&self.arguments).envs(self.environment).stdin(Stdio::null()).stdout(log).stderr(second);
        let child =
            spawn_for_life(command).map_err(Error::io(format!("start {} through setpriv", self.name)))?;
        Ok(Process { name: self.name, child, log: self.log })
    }

    /// Runs it to its end, and gives back what it printed.
    ///
    /// # Errors
    /// [`Error::Ended`] if it fails, [`Error::Deadline`] if it takes longer than `patience`
    /// (it is killed then).
    pub async fn run(self, patience: Duration) -> Result<String, Error> {
        let mut process = self.spawn()?;
        let status = process.ended(patience).await?;
        if !status.success() {
            return Err(process.failure(status));
        }
        fs::read_to_string(&process.log).map_err(Error::io(format!("read {}", process.log.display())))
    }
}

/// Spawns on a thread that lives as long as this process.
///
/// The kernel's parent death signal goes by the *thread* that spawned: a worker of an async
/// runtime or the thread of one test may end long before the process does.
fn spawn_for_life(command: Command) -> io::Result<Child> {
    type Order = (Command, mpsc::SyncSender<io::Result<Child>>);
    static SPAWNER: LazyLock<mpsc::Sender<Order>> = LazyLock::new(|| {
        let (orders, queue) = mpsc::channel::<Order>();
        thread::spawn(move || {
            for (mut command, answer) in queue {
                // Nobody waits any more: the child is killed with its unread answer.
                if let Err(mpsc::SendError(Ok(mut orphan))) = answer.send(command.spawn()) {
                    let _ = orphan.kill();
                    let _ = orphan.wait();
                }
            }
        });
        orders
    });
    let (answer, answered) = mpsc::sync_channel(1);
    let gone = || io::Error::other("the spawning thread is gone");
    SPAWNER.send((command, answer)).map_err(|_| gone())?;
    answered.recv().map_err(|_| gone())?
}

// === running ===

/// A program that was started. Dropping it kills it.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The file that has what it printed.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// Whether it still runs (a frozen one does).
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Its process id if it still runs.
    pub fn running_pid(&mut self) -> Option<u32> {
        self.is_running().then(|| self.pid())
    }

    /// Sends it a signal. One that has ended already is no error.
    pub fn signal(&mut self, signal: Signal) -> Result<(), Error> {
        // Not reaped yet, so the pid is still its own.
        if !self.is_running() {
            return Ok(());
        }
        send_signal(self.pid(), signal)
    }

    /// Waits for its end.
    pub async fn ended(&mut self, patience: Duration) -> Result<ExitStatus, Error> {
        let what = format!("the end of {}", self.name);
        let began = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().map_err(Error::io(what.clone()))? {
                return Ok(status);
            }
            if began.elapsed() >= patience {
                let last_seen = format!("it runs; the end of its output:\n{}", tail(&self.log));
                return Err(Error::Deadline { what, waited: began.elapsed(), last_seen });
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Sends `signal`, and waits for its end; kills it after `patience`, which is an error.
    pub async fn stop(&mut self, signal: Signal, patience: Duration) -> Result<ExitStatus, Error> {
        self.signal(signal)?;
        let ended = self.ended(patience).await;
        if ended.is_err() {
            self.kill();
        }
        ended
    }

    /// Kills it and waits for that, blocking for as long as the kernel takes.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Waits until `look` succeeds, as [`wait_for`], but gives up at once when the program
    /// has ended.
    ///
    /// # Errors
    /// [`Error::Ended`] with the end of its output, or [`Error::Deadline`].
    pub async fn ready<T, E, F, L>(&mut self, what: &str, patience: Duration, look: L) -> Result<T, Error>
    where
        E: Display,
        F: Future<Output = Result<T, E>>,
        L: FnMut() -> F,
    {
        tokio::select! {
            found = wait_for(what, patience, look) => found,
            // Asked for longer than the other, which has the better message.
            status = self.ended(patience * 2) => Err(self.failure(status?)),
        }
    }

    fn failure(&self, status: ExitStatus) -> Error {
        let status = match (status.code(), status.signal()) {
            (Some(code), _) => format!("exit code {code}"),
            (None, Some(signal)) => format!("signal {signal}"),
            (None, None) => "no status".to_owned(),
        };
        Error::Ended { name: self.name.clone(), status, log: tail(&self.log) }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Sends a signal to a process by its id. The caller knows that the id is still that process.
pub fn send_signal(pid: u32, signal: Signal) -> Result<(), Error> {
    let what = || format!("send signal {} to process {pid}", signal.as_raw());
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    let pid = pid.ok_or_else(|| Error::Io { what: what(), source: io::ErrorKind::InvalidInput.into() })?;
    match kill_process(pid, signal) {
        // It ended meanwhile: there is nobody to tell.
        Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
        Err(errno) => Err(Error::Io { what: what(), source: errno.into() }),
    }
}

/// The ids of the processes whose parent is `pid`.
pub fn children_of(pid: u32) -> Vec<u32> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let ids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    ids.filter(|child| parent_of(*child) == Some(pid)).collect()
}

fn parent_of(pid: u32) -> Option<u32> {
    Some(state_and_parent(pid)?.1)
}

/// Whether a process is stopped, as by SIGSTOP; one that is gone is not.
pub fn is_stopped(pid: u32) -> bool {
    state_and_parent(pid).is_some_and(|(state, _)| state == "T")
}

/// Whether a process still runs, or is stopped; one that only waits to be reaped does not.
pub fn is_alive(pid: u32) -> bool {
    state_and_parent(pid).is_some_and(|(state, _)| state != "Z" && state != "X")
}

fn state_and_parent(pid: u32) -> Option<(String, u32)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may itself contain spaces and parentheses.
    let (_, fields) = stat.rsplit_once(") ")?;
    let mut fields = fields.split(' ');
    Some((fields.next()?.to_owned(), fields.next()?.parse().ok()?))
}

/// The last lines of a file, for failure messages.
pub fn tail(path: &Path) -> String {
    let Ok(text) = fs::read(path) else { return format!("({} cannot be read)", path.display()) };
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    lines.iter().skip(lines.len().saturating_sub(LOG_TAIL_LINES)).copied().collect::<Vec<_>>().join("\n")
}
