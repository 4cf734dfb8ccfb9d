//! `undrain`: takes drains of the agent's own back, with a running agent or without.

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
    // A running agent would drain again what is taken back behind its back: tell it first.
    let told = ask(&arguments.control.control, Method::POST, "/undrain", &[]).await.is_ok();
    let state_dir =
        arguments.state_dir.clone().unwrap_or_else(|| config::state_dir(&arguments.config.config));
    match own(&DrainRecords::in_directory(&state_dir)).await {
        Ok(undone) => {
            match arguments.control.output.output {
                Format::Json => print_json(&undone),
                Format::Text => show(&undone, told),
            }
            if undone.failed.is_empty() { Exit::Ok } else { Exit::Problem }
        }
        Err(error) => {
            complain(error);
            Exit::CouldNotCheck
        }
    }
}

fn show(undone: &Undone, told: bool) {
    for server in &undone.taken_back {
        print(format_args!("{server}: drain taken back"));
    }
    for server in &undone.left_alone {
        print(format_args!("{server}: not drained any more, or in maintenance: left alone"));
    }
    for (server, error) in &undone.failed {
        complain(format_args!("{server}: {error}"));
    }
    if undone == &Undone::default() {
        print(if told { "the running agent takes its drains back" } else { "no drains on record" });
    }
}
