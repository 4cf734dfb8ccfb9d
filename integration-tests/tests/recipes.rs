//! HAProxy accepts the recipes in `deploy/`.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::{fs, path::Path, process::Command};

#[test]
fn haproxy_takes_the_recipes() {
    for name in ["haproxy.cfg", "mysql.cfg"] {
        let folder = tempfile::tempdir().unwrap();
        // The folder and the group are the operator's; everything else is checked as it stands.
        let text = haproxy_recipe(name)
            .replace("/run/haproxy/", &format!("{}/", folder.path().display()))
            .replace(" group haproxy", "");
        let file = folder.path().join(name);
        fs::write(&file, text).unwrap();
        let output = Command::new("haproxy").arg("-c").arg("-f").arg(&file).output().unwrap();
        assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

/// MySQL and MariaDB count what ends before its login against the proxy.
#[test]
fn nothing_but_the_agent_checks_a_server_of_the_mysql_family() {
    let recipe = haproxy_recipe("mysql.cfg");
    let settings: Vec<Vec<&str>> = recipe
        .lines()
        .map(|line| line.split('#').next().unwrap_or_default().split_whitespace().collect())
        .collect();
    for words in &settings {
        assert!(!words.iter().any(|word| *word == "check" || word.starts_with("check-")), "{words:?}");
        let option = words.first() == Some(&"option");
        assert!(!(option && words.iter().any(|word| word.ends_with("-check"))), "{words:?}");
    }
    let servers = settings.iter().filter(|words| words.first() == Some(&"server"));
    let (backup, checked): (Vec<_>, Vec<_>) = servers.partition(|words| words.contains(&"backup"));
    assert_eq!((backup.len(), checked.len()), (2, 4));
    assert!(checked.iter().all(|words| words.contains(&"agent-send")), "{checked:?}");
}

fn haproxy_recipe(name: &str) -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/haproxy");
    fs::read_to_string(folder.join(name)).unwrap()
}
