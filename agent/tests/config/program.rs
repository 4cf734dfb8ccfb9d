//! The real program with a file that is wrong or missing.

use std::process::Command;

use super::{GOOD, edited};

#[test]
fn run_and_validate_exit_64_with_the_problem_on_standard_error() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config.yaml");
    let state = format!("state_dir: {}\n", folder.path().join("state").display());
    std::fs::write(&path, edited("    instances:", "    instanses:") + &state).unwrap();
    for command in ["run", "validate"] {
        let output = Command::new(env!("CARGO_BIN_EXE_rds-lb-agent"))
            .env_clear()
            .args([command, "--config"])
            .arg(&path)
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(64), "{command}");
        let said = String::from_utf8(output.stderr).unwrap();
        let begin = format!("error: {}:5:5: unknown key `instanses`\n", path.display());
        assert!(said.starts_with(&begin), "{command}: {said}");
        assert!(said.contains("hint: did you mean `instances`?"), "{command}: {said}");
    }
}

#[test]
fn an_address_in_use_is_no_wrong_configuration_and_exits_2() {
    let folder = tempfile::tempdir().unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let path = folder.path().join("config.yaml");
    let own = format!(
        "state_dir: {0}/state\nlisten: {{agent_check: \"{1}\", http: \"127.0.0.1:0\", control: {0}/control.sock}}\n",
        folder.path().display(),
        taken.local_addr().unwrap()
    );
    std::fs::write(&path, GOOD.to_owned() + &own).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_rds-lb-agent"))
        .env_clear()
        .args(["run", "--config"])
        .arg(&path)
        .output()
        .unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("cannot listen on"), "{said}");
}

#[test]
fn a_missing_file_is_an_error_with_its_path_and_a_hint() {
    for command in ["run", "validate", "check"] {
        let output = Command::new(env!("CARGO_BIN_EXE_rds-lb-agent"))
            .env_clear()
            .env("RDS_LB_AGENT_CONFIG", "/nonexistent/config.yaml")
            .arg(command)
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(64), "{command}");
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(said.starts_with("error: /nonexistent/config.yaml: cannot read it: "), "{command}: {said}");
        assert!(said.contains("hint: name the file with --config"), "{command}: {said}");
    }
}

#[test]
fn validate_reports_each_ca_file_that_cannot_be_used() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config.yaml");
    let empty = folder.path().join("empty.pem");
    std::fs::write(&empty, "").unwrap();
    for (ca_file, words) in
        [("/nowhere/ca.pem", "cannot be read"), (empty.to_str().unwrap(), "holds no certificate")]
    {
        let text = edited("    instances:", &format!("    ca_file: {ca_file}\n    instances:"));
        std::fs::write(&path, text).unwrap();
        let output = Command::new(env!("CARGO_BIN_EXE_rds-lb-agent"))
            .env_clear()
            .args(["validate", "--config"])
            .arg(&path)
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(64));
        let said = String::from_utf8(output.stderr).unwrap();
        let begin = format!("error: {}:5: database `orders`: ", path.display());
        assert!(said.starts_with(&begin) && said.contains(words), "{said}");
    }
}
