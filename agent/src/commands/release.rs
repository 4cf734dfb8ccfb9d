//! `release`: ends what the agent has set in HAProxy, with or without a running agent.

use std::path::Path;

use reqwest::Method;

use super::{Exit, complain, print, print_json};
use crate::{
    api::control::ask,
    cli::{Format, Release},
    config,
    proxies::haproxy::release::{self, Released},
    run,
    state::{StateError, StateLock, downs::DownRecords},
};

pub(super) async fn release(arguments: &Release) -> Exit {
    let state_dir =
        arguments.state_dir.clone().unwrap_or_else(|| config::state_dir(&arguments.config.config));
    if !state_dir.is_dir() {
        complain(format_args!("{}: no such state directory; nothing was checked", state_dir.display()));
        return Exit::CouldNotCheck;
    }
    // A running agent has to know first, or it would drain the servers again.
    let asked = ask(&arguments.control.control, Method::POST, "/undrain", &[]).await.is_ok();
    let mut released = Released::default();
    if let Err(error) = end(&state_dir, arguments.operators, asked, &mut released).await {
        complain(error);
        return Exit::CouldNotCheck;
    }
    let unwritten =
        if released.kept_down.is_empty() { write_state_files(arguments).await } else { Vec::new() };
    match arguments.control.output.output {
        Format::Json => print_json(&released),
        Format::Text => show(&released),
    }
    for error in &unwritten {
        complain(format_args!(
            "HAProxy's server state file is not up to date, and is loaded at its next reload: {error}"
        ));
    }
    if released.failed.is_empty() && unwritten.is_empty() { Exit::Ok } else { Exit::Problem }
}

async fn end(
    state_dir: &Path,
    operators: bool,
    asked: bool,
    released: &mut Released,
) -> Result<(), StateError> {
    release::drains(state_dir, operators, released).await?;
    // Held until the end, so that no agent starts meanwhile.
    let lock = StateLock::acquire(state_dir);
    if asked || matches!(lock, Err(StateError::Locked { .. })) {
        let downs = DownRecords::in_directory(state_dir).load()?;
        let kept = downs.iter().filter(|down| !down.by_role).map(ToString::to_string);
        released.kept_down.extend(kept);
        return Ok(());
    }
    release::downs(state_dir, released).await
}

/// A HAProxy that is reloaded before the next agent starts must not load what has just ended. Where the
/// configuration cannot be read, no agent has kept such a file for it either, or it is the operator's to write.
async fn write_state_files(arguments: &Release) -> Vec<String> {
    match config::load(&arguments.config.config) {
        Ok(loaded) => run::write_state_files(&loaded.config).await,
        Err(_) => Vec::new(),
    }
}

fn show(released: &Released) {
    for server in &released.taken_back {
        print(format_args!("{server}: drain taken back"));
    }
    for server in &released.lifted {
        print(format_args!("{server}: up again"));
    }
    for server in &released.left_alone {
        print(format_args!("{server}: no longer drained or DOWN, or in maintenance; not changed"));
    }
    for server in &released.operators {
        print(format_args!("{server}: drained by an operator, not changed; `--operators` ends it"));
    }
    for (server, command) in &released.stays_down {
        print(format_args!("{server}: stays DOWN for its role; to lift it: {command}"));
    }
    for server in &released.kept_down {
        print(format_args!("{server}: DOWN by the running agent; `pause` or a stop of the agent lifts it"));
    }
    for (server, error) in &released.failed {
        complain(format_args!("{server}: {error}"));
    }
    if released.is_empty() {
        print("nothing on record");
    }
}
