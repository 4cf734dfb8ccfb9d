//! `undrain`: takes back drains made by the agent, with or without a running agent.

use reqwest::Method;

use super::{Exit, complain, control, print, print_json};
use crate::{
    api::control::ask,
    cli::{Format, Undrain},
    config,
    proxies::haproxy::take_back::{Undone, own},
    state::records::DrainRecords,
};

pub(super) async fn undrain(arguments: &Undrain) -> Exit {
    if let Some(server) = &arguments.server {
        let query = [("server", server.as_str())];
        return control::answer(&arguments.control, Method::POST, "/undrain", &query, |_| {
            print(format_args!("{server}: its drain is being taken back"));
        })
        .await;
    }
    // A running agent has to know first, or it would drain the servers again.
    let agent_runs = ask(&arguments.control.control, Method::POST, "/undrain", &[]).await.is_ok();
    let state_dir =
        arguments.state_dir.clone().unwrap_or_else(|| config::state_dir(&arguments.config.config));
    match own(&DrainRecords::in_directory(&state_dir)).await {
        Ok(undone) => {
            match arguments.control.output.output {
                Format::Json => print_json(&undone),
                Format::Text => show(&undone, agent_runs),
            }
            if undone.failed.is_empty() { Exit::Ok } else { Exit::Problem }
        }
        Err(error) => {
            complain(error);
            Exit::CouldNotCheck
        }
    }
}

fn show(undone: &Undone, agent_runs: bool) {
    for server in &undone.taken_back {
        print(format_args!("{server}: drain taken back"));
    }
    for server in &undone.left_alone {
        print(format_args!("{server}: no longer drained, or in maintenance; not changed"));
    }
    for (server, error) in &undone.failed {
        complain(format_args!("{server}: {error}"));
    }
    if undone == &Undone::default() {
        print(if agent_runs { "the running agent takes its drains back" } else { "no drains on record" });
    }
}
