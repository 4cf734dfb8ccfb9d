//! The demo as a user runs it: exit codes, summary, and that it leaves nothing behind.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test")]

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use integration_tests::process::{Signal, send_signal, wait_for};
use serde_json::Value;
use tempfile::TempDir;
use tokio::process::{Child, Command};

const PATIENCE: Duration = Duration::from_secs(150);

/// What `summary.json` has at least.
const NAMED: [&str; 13] = [
    "retired",
    "longest_overstay_s",
    "oldest_age_s",
    "oldest_held_s",
    "limit_s",
    "transactions",
    "broken_at_begin",
    "broken_inside",
    "broken_at_commit",
    "max_closes_and_own_logins_per_s",
    "max_logins_per_s",
    "holds",
    "holds_count",
];

/// A demo that runs, with temporary folders in one that it should leave empty.
struct Demo {
    process: Child,
    folder: TempDir,
}

impl Demo {
    fn start(variables: &[(&str, &str)]) -> Self {
        let folder = tempfile::Builder::new().prefix("demo-").tempdir().unwrap();
        // Its servers have no right to what is root's.
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let temporary = folder.path().join("t");
        fs::create_dir(&temporary).unwrap();
        let said = fs::File::create(folder.path().join("said")).unwrap();
        let process = Command::new(env!("CARGO_BIN_EXE_demo"))
            .env("TMPDIR", &temporary)
            .env("TO", folder.path().join("to"))
            .envs(variables.iter().copied())
            .stdout(said.try_clone().unwrap())
            .stderr(said)
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        Self { process, folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn said(&self) -> String {
        fs::read_to_string(self.path("said")).unwrap()
    }

    /// Waits for a line with these words.
    async fn says(&self, words: &str) -> String {
        wait_for(&format!("a line {words}"), PATIENCE, async || {
            let said = self.said();
            said.lines().find(|line| line.contains(words)).map(str::to_owned).ok_or(said)
        })
        .await
        .unwrap()
    }

    fn signal(&self, signal: Signal) {
        send_signal(self.process.id().unwrap(), signal).unwrap();
    }

    /// Waits for its end: the exit code. Nothing is left by then.
    async fn ended(mut self) -> i32 {
        let status = tokio::time::timeout(PATIENCE, self.process.wait()).await;
        let code = status.unwrap_or_else(|_| panic!("{}", self.said())).unwrap().code();
        let left: Vec<_> = fs::read_dir(self.path("t")).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert!(left.is_empty(), "{left:?}: {}", self.said());
        code.unwrap_or_else(|| panic!("killed: {}", self.said()))
    }

    fn summary(&self) -> Value {
        serde_json::from_str(&fs::read_to_string(self.path("to/summary.json")).unwrap()).unwrap()
    }
}

/// Has a shell run a line that was printed, as if it were pasted into another terminal.
async fn paste(line: &str, folder: &Path) -> String {
    let mut shell = Command::new("bash");
    let output = shell.args(["-c", line]).env_clear().env("PATH", "/usr/bin:/bin").current_dir(folder);
    let output = output.output().await.unwrap();
    assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn is_complete(summary: &Value) {
    assert!(NAMED.iter().all(|name| !summary[name].is_null()), "{summary}");
    assert!(summary["retired"].as_u64() > Some(0) && summary["transactions"].as_u64() > Some(0), "{summary}");
    assert!(summary["tables_exact"] == true && summary["broken_at_commit"] == 0, "{summary}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_ends_well_and_held_it_prints_a_command_that_works_by_itself() {
    let demo = Demo::start(&[("DURATION", "20"), ("HOLD", "1")]);
    let psql = demo.says("PGPASSWORD=").await;
    assert!(
        ["host=", "hostaddr=", "sslrootcert=", " token "].iter().all(|word| psql.contains(word)),
        "{psql}"
    );
    // Written before it is held.
    is_complete(&demo.summary());
    assert_eq!(paste(&format!("{psql} -Atc 'select 1'"), demo.folder.path()).await.trim(), "1");
    demo.signal(Signal::INT);
    assert_eq!(demo.ended().await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_ends_well_with_mariadb_behind_envoy() {
    let variables = [("DURATION", "20"), ("HOLD", "1"), ("ENGINE", "mariadb"), ("PROXY", "envoy")];
    let demo = Demo::start(&variables);
    let mariadb = demo.says("MYSQL_PWD=").await;
    is_complete(&demo.summary());
    assert_eq!(paste(&format!("{mariadb} -Ne 'select 1'"), demo.folder.path()).await.trim(), "1");
    demo.signal(Signal::TERM);
    assert_eq!(demo.ended().await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_signal_at_any_moment_ends_it_and_leaves_nothing() {
    // While servers start; while clients come; while they work.
    for (moment, hold, signal) in [
        ("starting a PostgreSQL", "1", Signal::INT),
        ("HAProxy routes", "", Signal::TERM),
        ("s left", "1", Signal::TERM),
    ] {
        let demo = Demo::start(&[("HOLD", hold)]);
        demo.says(moment).await;
        demo.signal(signal);
        assert_eq!(demo.ended().await, 130, "{moment}");
    }
}
