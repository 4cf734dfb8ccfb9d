//! Nothing is left behind, however a stand-in ends; and the command `iam-standin`.

use std::{
    fs,
    net::SocketAddr,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
};

use integration_tests::{
    mysql::{Dial, Login, Secret, Tls},
    process::{Launch, Process, Signal, children_of, is_alive, wait_for},
    standin::{Engine, StandIn},
    tls::VerifiedTls,
};
use serde_json::Value;
use tempfile::TempDir;

use super::{PATIENCE, on_each_engine, session, started};

on_each_engine!(
    nothing_is_left_after_a_shutdown,
    nothing_is_left_after_a_drop_even_of_a_frozen_server,
    the_command_serves_clients_and_ends_cleanly_on_sigterm,
    nothing_is_left_when_the_process_is_killed_even_of_a_frozen_server,
);

/// Everything of a stand-in that must not outlive it.
struct Traces {
    folder: PathBuf,
    pids: Vec<u32>,
}

impl Traces {
    async fn of(standin: &StandIn) -> Self {
        let mut pids = Vec::new();
        for server in standin.servers() {
            let first = server.pid().await.unwrap();
            pids.extend(children_of(first));
            pids.push(first);
        }
        Self { folder: standin.folder().to_owned(), pids }
    }

    fn left(&self) -> Result<(), String> {
        let alive: Vec<&u32> = self.pids.iter().filter(|pid| is_alive(**pid)).collect();
        let folder = self.folder.exists();
        if alive.is_empty() && !folder {
            Ok(())
        } else {
            Err(format!("folder {folder}, processes {alive:?}"))
        }
    }
}

async fn nothing_is_left_after_a_shutdown(engine: Engine) {
    let standin = started(engine, 1).await;
    let _open = session(&standin, "a").await;
    let traces = Traces::of(&standin).await;
    assert!(traces.left().is_err() && traces.pids.len() >= 2, "there is something to leave");
    standin.shutdown().await.unwrap();
    traces.left().unwrap();
}

async fn nothing_is_left_after_a_drop_even_of_a_frozen_server(engine: Engine) {
    let standin = started(engine, 1).await;
    let _open = session(&standin, "b").await;
    let traces = Traces::of(&standin).await;
    standin.freeze("b").await.unwrap();
    drop(standin);
    traces.left().unwrap();
}

/// A running `iam-standin`, in a folder of its own.
struct Running {
    process: Process,
    summary: Value,
    binary: PathBuf,
    _folder: TempDir,
}

impl Running {
    /// As an unprivileged user if this test is root: the command must not need it.
    async fn start(engine: Engine, arguments: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        // That user may not be able to read the folder that this was built in.
        let binary = folder.path().join("iam-standin");
        fs::copy(env!("CARGO_BIN_EXE_iam-standin"), &binary).unwrap();
        let mut process = Launch::new("output", &binary, folder.path())
            .args(["run", "--json", "--engine"])
            .arg(match engine {
                Engine::Postgresql => "postgresql",
                Engine::Mariadb => "mariadb",
            })
            .args(arguments)
            .unprivileged()
            .unwrap()
            .folder(Path::new("/"))
            .spawn()
            .unwrap();
        let output = process.log().to_owned();
        let summary = process
            .ready("the summary", PATIENCE, || async {
                let output = fs::read_to_string(&output).map_err(|error| error.to_string())?;
                serde_json::from_str::<Value>(&output).map_err(|error| error.to_string())
            })
            .await
            .unwrap();
        Self { process, summary, binary, _folder: folder }
    }

    fn text(&self, key: &str) -> &str {
        self.summary[key].as_str().unwrap()
    }

    /// Asks it through its control socket, as a person would.
    fn say(&self, words: &[&str]) -> Result<String, String> {
        let output = Command::new(&self.binary)
            .args(["--control", self.text("control")])
            .args(words)
            .output()
            .unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap().trim_end().to_owned();
        if output.status.success() { Ok(text(output.stdout)) } else { Err(text(output.stderr)) }
    }

    fn traces(&self) -> Traces {
        let folder = Path::new(self.text("ca_file")).parent().unwrap().to_owned();
        let pid_files = ["data/postmaster.pid", "data/mariadbd.pid"];
        let pids = fs::read_dir(&folder)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter_map(|server| pid_files.iter().find_map(|file| fs::read_to_string(server.join(file)).ok()))
            .map(|text| text.lines().next().unwrap().parse().unwrap())
            .flat_map(|pid| children_of(pid).into_iter().chain([pid]))
            .collect();
        Traces { folder, pids }
    }
}

async fn the_command_serves_clients_and_ends_cleanly_on_sigterm(engine: Engine) {
    let mut running =
        Running::start(engine, &["--replicas", "1", "--prefix", "billing", "--credential-life", "60s"]).await;
    let server = &running.summary["servers"][0];
    assert_eq!(server["endpoint"], "billing-a.c1a2b3d4e5f6.eu-west-1.rds.amazonaws.com");

    let token = running.say(&["token", "app"]).unwrap();
    let connect: SocketAddr = server["connect"].as_str().unwrap().parse().unwrap();
    let (ca_file, endpoint) = (Path::new(running.text("ca_file")), server["endpoint"].as_str().unwrap());
    let tls = VerifiedTls::from_ca_file(ca_file).unwrap();
    match engine {
        Engine::Postgresql => {
            let mut login = tokio_postgres::Config::new();
            login.host(endpoint).hostaddr(connect.ip()).port(connect.port());
            login.user("app").dbname("orders").password(token);
            let (client, connection) = login.connect(tls).await.unwrap();
            tokio::spawn(connection);
            client.batch_execute("SELECT 1").await.unwrap();
            assert!(running.text("client").contains("sslmode=verify-full"));
            assert!(running.say(&["logins"]).unwrap().contains("app from 127.0.0.1  accepted"));
        }
        Engine::Mariadb => {
            let login = Login {
                dial: Dial::Tcp(connect),
                from: None,
                tls: Some(Tls { config: tls.config(), name: endpoint.to_owned() }),
                user: "app".to_owned(),
                secret: Secret::Token(token),
                database: Some("orders".to_owned()),
            };
            login.connect().await.unwrap().query("SELECT 1").await.unwrap();
            let client = running.text("client").to_owned() + " --execute 'SELECT CURRENT_USER()'";
            let output = Command::new("sh").args(["-c", &client]).output().unwrap();
            let said = String::from_utf8_lossy(&output.stdout).into_owned();
            assert!(said.contains("app@%"), "{said} {}", String::from_utf8_lossy(&output.stderr));
            assert!(running.say(&["logins"]).unwrap().contains("accepted"));
        }
    }

    assert_eq!(running.say(&["failover", "b"]).unwrap(), "");
    let status = running.say(&["status"]).unwrap();
    assert!(status.contains("a  replica") && status.contains("b  writer"), "{status}");
    assert_eq!(running.say(&["sql", "b", "SELECT 1, NULL; SELECT 2"]).unwrap(), "1 | \n2");
    assert_eq!(running.say(&["freeze", "z"]).unwrap_err(), "iam-standin: there is no server z");

    let traces = running.traces();
    assert!(traces.left().is_err());
    let status = running.process.stop(Signal::TERM, PATIENCE).await.unwrap();
    assert!(status.success(), "{status}");
    traces.left().unwrap();
}

async fn nothing_is_left_when_the_process_is_killed_even_of_a_frozen_server(engine: Engine) {
    let mut running = Running::start(engine, &["--replicas", "1"]).await;
    running.say(&["freeze", "a"]).unwrap();
    let traces = running.traces();
    assert!(traces.pids.len() >= 2, "there is something to leave");
    running.process.kill();
    wait_for("all to be gone", PATIENCE, || async { traces.left() }).await.unwrap();
}
