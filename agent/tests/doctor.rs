//! The command `doctor` on files. The rules are tested in `agent/doctor/tests`.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test")]

use std::{
    fs,
    path::Path,
    process::{Command, Output},
};

use serde_json::Value;

fn deploy(file: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy").join(file).display().to_string()
}

fn doctor(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rds-lb-agent"));
    command.env_clear().arg("doctor").args(arguments).output().unwrap()
}

fn text(output: &Output) -> (i32, String) {
    let both = [output.stdout.clone(), output.stderr.clone()].concat();
    (output.status.code().unwrap(), String::from_utf8(both).unwrap())
}

#[test]
fn recipes_are_clean_also_when_strict() {
    for (flag, file) in [
        ("--haproxy", "haproxy/haproxy.cfg"),
        ("--haproxy", "haproxy/mysql.cfg"),
        ("--haproxy", "haproxy/fail-closed.cfg"),
        ("--envoy", "envoy/envoy.yaml"),
        ("--envoy", "envoy/static-checks.yaml"),
    ] {
        let (code, text) = text(&doctor(&[flag, &deploy(file), "--strict"]));
        assert_eq!(code, 0, "{file}: {text}");
        assert!(text.contains("0 errors, 0 warnings"), "{text}");
    }
}

#[test]
fn a_mistake_of_a_default_server_line_is_shown_once() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("haproxy.cfg");
    let servers =
        ["a", "b", "c"].map(|name| format!(" server {name} 10.0.0.1:5432 agent-send \"w/{name}\\n\"\n"));
    let backend = "defaults\n mode tcp\nbackend w\n default-server agent-check agent-port 7878\n";
    fs::write(&file, backend.to_owned() + &servers.concat()).unwrap();
    let path = file.display().to_string();
    let (_, shown) = text(&doctor(&["--haproxy", &path]));
    assert_eq!(shown.matches("[haproxy-agent-address]").count(), 1, "{shown}");
    assert!(shown.contains("and 2 more by the same line") && shown.contains("4 errors"), "{shown}");
}

#[test]
fn a_mistake_has_its_rule_its_line_and_its_fix() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("10-global.cfg"), "global\n stats socket /run/haproxy.sock level admin\n")
        .unwrap();
    let backend = "defaults\n mode http\nbackend orders_write\n server a 10.0.0.1:5432\n";
    fs::write(folder.path().join("20-orders.cfg"), backend).unwrap();
    fs::write(folder.path().join("notes.txt"), "no configuration\n").unwrap();
    let path = folder.path().display().to_string();
    let output = doctor(&["--haproxy", &path]);
    let (code, shown) = text(&output);
    assert_eq!(code, 1, "{shown}");
    assert!(shown.contains(&format!("error[haproxy-mode-http]: {path}/20-orders.cfg:2:")), "{shown}");

    let output = doctor(&["--haproxy", &path, "--output", "json"]);
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let findings = report["findings"].as_array().unwrap();
    let mode = findings.iter().find(|finding| finding["rule"] == "haproxy-mode-http").unwrap();
    assert_eq!((mode["severity"].as_str(), mode["line"].as_u64()), (Some("error"), Some(2)));
    assert!(!mode["why"].as_str().unwrap().is_empty() && !mode["fix"].as_str().unwrap().is_empty());
}

#[test]
fn warnings_fail_only_when_strict_and_rules_can_be_allowed() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("haproxy.cfg");
    fs::write(
        &file,
        fs::read_to_string(deploy("haproxy/haproxy.cfg")).unwrap().replace("retries 10", "retries 2"),
    )
    .unwrap();
    let file = file.display().to_string();
    let code = |more: &[&str]| text(&doctor(&[&["--haproxy", &file], more].concat())).0;
    assert_eq!(code(&[]), 0);
    assert_eq!(code(&["--strict"]), 1);
    assert_eq!(code(&["--strict", "--allow", "haproxy-retries"]), 0);
    assert_eq!(code(&["--allow", "haproxy-retry"]), 64);
}

#[test]
fn the_agents_configuration_is_compared() {
    let folder = tempfile::tempdir().unwrap();
    let agent = Path::new(env!("CARGO_MANIFEST_DIR")).join("example.yaml").display().to_string();
    let recipe = fs::read_to_string(deploy("haproxy/haproxy.cfg")).unwrap();
    let file = folder.path().join("haproxy.cfg");
    // The example calls the servers pg1 and pg2.
    fs::write(&file, recipe).unwrap();
    let (code, shown) = text(&doctor(&["--haproxy", file.to_str().unwrap(), "--config", &agent]));
    assert_eq!(code, 1, "{shown}");
    assert!(shown.contains("haproxy-server-names"), "{shown}");
}

#[test]
fn what_cannot_be_read_is_said() {
    assert_eq!(text(&doctor(&[])).0, 64);
    let (code, shown) = text(&doctor(&["--haproxy", "/nonexistent/haproxy.cfg"]));
    assert_eq!(code, 2, "{shown}");
    assert!(shown.contains("not examined: /nonexistent/haproxy.cfg"), "{shown}");
}

#[test]
fn secrets_of_the_files_are_not_printed() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("haproxy.cfg");
    let configuration = "global\n stats socket /x level admin\nuserlist u\n user me password s3cret\nlisten s\n bind :9\n \
                         stats auth me:s3cret\nbackend orders_write\n option mysql-check user s3cret\n \
                         server a 10.0.0.1:3306 check\n log \"s3cret\n";
    fs::write(&file, configuration).unwrap();
    for format in ["text", "json"] {
        let (_, shown) = text(&doctor(&["--haproxy", file.to_str().unwrap(), "--output", format]));
        assert!(shown.contains("haproxy-mysql-check") && !shown.contains("s3cret"), "{shown}");
    }
}
