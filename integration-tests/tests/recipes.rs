//! The recipes in `deploy/` are what the programs they are for really take.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::{fs, path::Path, process::Command};

#[test]
fn haproxy_takes_the_recipe() {
    let recipe = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/haproxy/haproxy.cfg");
    let folder = tempfile::tempdir().unwrap();
    // The folder and the group are the operator's; everything else is checked as it stands.
    let text = fs::read_to_string(recipe)
        .unwrap()
        .replace("/run/haproxy/", &format!("{}/", folder.path().display()))
        .replace(" group haproxy", "");
    let file = folder.path().join("haproxy.cfg");
    fs::write(&file, text).unwrap();
    let output = Command::new("haproxy").arg("-c").arg("-f").arg(&file).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
