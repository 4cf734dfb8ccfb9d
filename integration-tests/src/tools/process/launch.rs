//! Starts a program as a given user; it ends with this process.

use std::{
    env,
    ffi::{OsStr, OsString},
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{LazyLock, mpsc},
    thread,
    time::Duration,
};

use rustix::process::geteuid;

use super::{Error, Process};

/// A user without rights, for programs that refuse to be root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    pub uid: u32,
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

    #[must_use]
    pub fn arg(mut self, argument: impl AsRef<OsStr>) -> Self {
        self.arguments.push(argument.as_ref().to_owned());
        self
    }

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
        Ok(Process::new(self.name, child, self.log))
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
        let log = process.log();
        fs::read_to_string(log).map_err(Error::io(format!("read {}", log.display())))
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
                // The caller has given up: the child is killed with its unread output.
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
