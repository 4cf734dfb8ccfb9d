//! The command line of the real program: help, version, exit codes and error messages.

#![allow(clippy::unwrap_used)]

use std::{
    io::BufRead,
    net::TcpListener,
    path::Path,
    process::{Command, Output},
};

/// The program with an empty environment.
fn agent(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rds-lb-agent"));
    // No source of credentials or of a region is available.
    command.env_clear().env("AWS_EC2_METADATA_DISABLED", "true").env("HOME", "/nonexistent").args(arguments);
    command
}

fn run(arguments: &[&str]) -> Output {
    agent(arguments).output().unwrap()
}

fn code(output: &Output) -> Option<i32> {
    output.status.code()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// A configuration file with one writer at the address `connect`.
fn config(folder: &Path, connect: &str) -> String {
    let path = folder.join("config.yaml");
    let text = format!(
        "databases:\n  \
           - name: orders\n    \
             engine: postgresql\n    \
             user: lb_agent\n    \
             instances:\n      \
               - name: a\n        \
                 endpoint: orders-a.abc.eu-west-1.rds.amazonaws.com:5432\n        \
                 connect: {connect}\n\
         proxies:\n  \
           - haproxy: {{socket: /run/haproxy/admin.sock}}\n    \
             backends:\n      \
               orders_write: {{database: orders, role: writer, servers: {{pg1: a}}}}\n"
    );
    std::fs::write(&path, text).unwrap();
    path.display().to_string()
}

/// An address that refuses connections.
fn closed_port() -> String {
    // Bound and dropped.
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}

/// The program as HAProxy runs it as an external check.
fn external(config: &str, server: &str) -> Command {
    let mut command = agent(&["check", "--config", config, "NOT_USED", "NOT_USED", "10.0.0.1", "5432"]);
    command.env("HAPROXY_PROXY_NAME", "orders_write").env("HAPROXY_SERVER_NAME", server);
    command
}

fn with_keys(command: &mut Command) -> &mut Command {
    command.env("AWS_ACCESS_KEY_ID", "AKIAEXAMPLE").env("AWS_SECRET_ACCESS_KEY", "made-up-secret-key")
}

// === usage ===

#[test]
fn help_lists_exit_codes_and_every_command() {
    let help = run(&["--help"]);
    assert_eq!(code(&help), Some(0));
    let text = stdout(&help);
    for words in ["0 ok", "1 a problem was found", "2 could not check", "64 wrong usage or configuration"] {
        assert!(text.contains(words), "{words} in {text}");
    }
    for command in [
        "run", "check", "observe", "token", "sessions", "drain", "undrain", "pause", "resume", "validate",
        "schema", "version",
    ] {
        assert!(text.contains(&format!("\n  {command} ")), "{command} in {text}");
        let help = run(&[command, "--help"]);
        assert_eq!(code(&help), Some(0), "{command}");
        assert!(stdout(&help).contains(&format!("Usage: rds-lb-agent {command}")), "{command}");
    }
}

#[test]
fn wrong_usage_exits_64_with_an_error_on_standard_error() {
    for (arguments, words) in [
        (&[][..], "Usage: rds-lb-agent <COMMAND>"),
        (&["nonsense"], "unrecognized subcommand 'nonsense'"),
        (&["chekc"], "'check'"),
        (&["run", "--confg", "x"], "'--config'"),
        (&["token", "--user", "app"], "--endpoint <HOST:PORT>"),
        (&["check", "--role", "primary"], "writer, reader, any"),
        (&["drain"], "<SERVER>"),
        (&["undrain"], "<SERVER>"),
        (&["version", "--output", "yaml"], "text, json"),
    ] {
        let output = run(arguments);
        assert_eq!(code(&output), Some(64), "{arguments:?}");
        assert!(stderr(&output).contains(words), "{arguments:?}: {}", stderr(&output));
        assert_eq!(stdout(&output), "", "{arguments:?}");
    }
}

#[test]
fn the_version_is_printed_as_text_and_json() {
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!(stdout(&run(&["version"])), format!("rds-lb-agent {version}\n"));
    assert_eq!(stdout(&run(&["--version"])), format!("rds-lb-agent {version}\n"));
    let json: serde_json::Value =
        serde_json::from_slice(&run(&["version", "--output", "json"]).stdout).unwrap();
    assert_eq!(json, serde_json::json!({"name": "rds-lb-agent", "version": version}));
}

#[test]
fn flags_override_environment_variables() {
    let json = agent(&["version"]).env("RDS_LB_AGENT_OUTPUT", "json").output().unwrap();
    assert!(stdout(&json).starts_with('{'));
    let text = agent(&["version", "--output", "text"]).env("RDS_LB_AGENT_OUTPUT", "json").output().unwrap();
    assert!(stdout(&text).starts_with("rds-lb-agent "));
}

// === token ===

#[test]
fn only_the_token_is_printed() {
    let mut command =
        agent(&["token", "--endpoint", "orders-a.abc.eu-west-1.rds.amazonaws.com:5432", "--user", "app"]);
    let output = with_keys(&mut command).output().unwrap();
    assert_eq!(code(&output), Some(0), "{}", stderr(&output));
    let text = stdout(&output);
    assert!(
        text.starts_with("orders-a.abc.eu-west-1.rds.amazonaws.com:5432/?Action=connect&DBUser=app&"),
        "{text}"
    );
    assert!(text.contains("%2Feu-west-1%2Frds-db%2Faws4_request"), "{text}");
    assert_eq!(text.lines().count(), 1);
    assert_eq!(stderr(&output), "");
}

#[test]
fn a_token_that_cannot_be_generated_is_an_error_with_a_reason() {
    const ENDPOINT: &str = "orders-a.abc.eu-west-1.rds.amazonaws.com:5432";
    for (arguments, exit, words) in [
        (["--endpoint", ENDPOINT, "--user", "app"], 2, "no AWS credentials here: set AWS_PROFILE"),
        (["--endpoint", "orders-a.abc.eu-west-1.rds.amazonaws.com", "--user", "app"], 64, "HOST:PORT"),
        (["--endpoint", "balancer.example:5432", "--user", "app"], 64, "use --region or set AWS_REGION"),
        (["--endpoint", ENDPOINT, "--user", ""], 64, "is empty"),
    ] {
        let output = agent(&["token"]).args(arguments).output().unwrap();
        assert_eq!(code(&output), Some(exit), "{arguments:?}: {}", stderr(&output));
        assert!(stderr(&output).contains(words), "{arguments:?}: {}", stderr(&output));
        assert_eq!(stdout(&output), "", "{arguments:?}");
    }
}

// === check ===

#[test]
fn check_distinguishes_problems_from_checks_that_cannot_be_made() {
    let folder = tempfile::tempdir().unwrap();
    let config = config(folder.path(), &closed_port());
    let refused = with_keys(&mut agent(&["check", "--config", &config])).output().unwrap();
    assert_eq!(code(&refused), Some(1));
    assert!(stdout(&refused).contains("orders/a: FAILED"), "{}", stdout(&refused));
    assert!(stdout(&refused).contains("hint: is the instance running"), "{}", stdout(&refused));
    let json = with_keys(&mut agent(&["check", "--config", &config, "--output", "json"])).output().unwrap();
    for output in [stdout(&refused), stderr(&refused), stdout(&json), stderr(&json)] {
        assert!(!output.contains("made-up-secret") && !output.contains("X-Amz-Signature"), "{output}");
    }

    let without_keys = run(&["check", "--config", &config, "--output", "json"]);
    assert_eq!(code(&without_keys), Some(2));
    let found: serde_json::Value = serde_json::from_slice(&without_keys.stdout).unwrap();
    assert_eq!(found[0]["instance"], "orders/a");
    assert_eq!(found[0]["fault"]["kind"], "no_token");

    let unknown = run(&["check", "--config", &config, "--instance", "orders/z"]);
    assert_eq!(code(&unknown), Some(64));
    assert!(stderr(&unknown).contains("there are orders/a"), "{}", stderr(&unknown));
}

#[test]
fn the_external_check_fails_only_on_proof() {
    let folder = tempfile::tempdir().unwrap();
    let config = config(folder.path(), &closed_port());
    let refused = with_keys(&mut external(&config, "pg1")).output().unwrap();
    assert_eq!(code(&refused), Some(1), "{}", stderr(&refused));

    let without_keys = external(&config, "pg1").output().unwrap();
    assert_eq!(code(&without_keys), Some(0), "{}", stdout(&without_keys));

    let unknown = with_keys(&mut external(&config, "pg9")).output().unwrap();
    assert_eq!(code(&unknown), Some(0));
    assert!(stderr(&unknown).contains("`orders_write/pg9`"), "{}", stderr(&unknown));

    let no_config = with_keys(&mut external("/nonexistent/config.yaml", "pg1")).output().unwrap();
    assert_eq!(code(&no_config), Some(0));
    assert!(stderr(&no_config).contains("/nonexistent/config.yaml"), "{}", stderr(&no_config));
}

// === asking a running agent ===

#[test]
fn commands_without_a_running_agent_name_the_control_socket() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("control.sock").display().to_string();
    for arguments in [
        &["sessions", "--control", &socket][..],
        &["drain", "orders_write/pg1", "--control", &socket],
        &["pause", "--control", &socket],
        &["resume", "--control", &socket],
        &["undrain", "orders_write/pg1", "--control", &socket],
    ] {
        let output = run(arguments);
        assert_eq!(code(&output), Some(2), "{arguments:?}: {}", stderr(&output));
        assert!(stderr(&output).contains(&socket), "{arguments:?}: {}", stderr(&output));
    }
}

#[test]
fn recorded_drains_are_taken_back_without_an_agent_or_a_configuration() {
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().display().to_string();
    let socket = folder.path().join("control.sock").display().to_string();
    let arguments = [
        "undrain",
        "--own",
        "--state-dir",
        &state,
        "--control",
        &socket,
        "--config",
        "/nonexistent/config.yaml",
    ];
    let output = run(&arguments);
    assert_eq!(code(&output), Some(0), "{}", stderr(&output));
    assert_eq!(stdout(&output), "nothing on record\n");

    // A record that cannot be worked off stays a problem.
    let record = serde_json::json!([{
        "socket": folder.path().join("haproxy.sock"), "backend": "orders_write", "server": "pg1",
        "reason": "test", "since": 1
    }]);
    std::fs::write(folder.path().join("drains.json"), record.to_string()).unwrap();
    let output = run(&arguments);
    assert_eq!(code(&output), Some(1), "{}", stdout(&output));
    assert!(stderr(&output).contains("orders_write/pg1"), "{}", stderr(&output));
    assert!(folder.path().join("drains.json").exists());
}

#[test]
fn an_agent_that_ends_is_started_again_until_a_signal_stops_it() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("config.yaml");
    std::fs::write(&config, "databases: 1\n").unwrap();
    let mut parent = Command::new(env!("CARGO_BIN_EXE_rds-lb-agent"))
        .args(["run", "--restart", "--config"])
        .arg(&config)
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let lines = std::io::BufReader::new(parent.stderr.take().unwrap()).lines();
    // The second end of an agent, although the configuration is wrong.
    let ends = lines.map(Result::unwrap).filter(|line| line.contains("is started again"));
    assert_eq!(ends.take(2).count(), 2);
    let pid = rustix::process::Pid::from_child(&parent);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert!(parent.wait().unwrap().code().is_some(), "it ends by itself, not by the signal");
}
