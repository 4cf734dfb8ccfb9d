//! `writer`, `pause`, `resume`: requests to the running agent.

use reqwest::Method;
use serde_json::Value;

use super::{Exit, complain, print, print_json};
use crate::{
    api::control::{ControlError, ask},
    cli::{Control, Format, Pause, Writer},
};

pub(super) async fn writer(arguments: &Writer) -> Exit {
    let query = [("database", arguments.database.as_str()), ("instance", arguments.instance.as_str())];
    answer(&arguments.control, Method::POST, "/writer", &query, |_| {
        print(format_args!(
            "{}: {} keeps the writer's role while it claims it",
            arguments.database, arguments.instance
        ));
    })
    .await
}

pub(super) async fn pause(arguments: &Pause) -> Exit {
    let user = user();
    let query = [("reason", arguments.reason.as_str()), ("user", &user)];
    answer(&arguments.control, Method::POST, "/pause", &query, |_| {
        print(
            "paused: until `resume` the agent closes no session, begins no drain of its own, and keeps no server DOWN, \
             except for its role in a writer backend; operators' drains stay",
        );
    })
    .await
}

pub(super) async fn resume(arguments: &Control) -> Exit {
    let user = user();
    answer(arguments, Method::POST, "/resume", &[("user", &user)], |answer| {
        print(if answer["was_paused"] == false {
            "it was not paused; closes that were refused are tried again"
        } else {
            "resumed"
        });
    })
    .await
}

/// The user at the keyboard, for the log and `status`. The control socket is open to its owner alone, so
/// that is not checked.
fn user() -> String {
    let named = |name| std::env::var(name).ok().filter(|user| !user.is_empty());
    let uid = || format!("uid {}", rustix::process::getuid().as_raw());
    ["SUDO_USER", "USER", "LOGNAME"].into_iter().find_map(named).unwrap_or_else(uid)
}

/// Sends a request and prints the response.
pub(super) async fn answer(
    control: &Control,
    method: Method,
    path: &str,
    query: &[(&str, &str)],
    text: impl Fn(&Value),
) -> Exit {
    match ask(&control.control, method, path, query).await {
        Ok(value) => {
            match control.output.output {
                Format::Json => print_json(&value),
                Format::Text => text(&value),
            }
            Exit::Ok
        }
        Err(error) => failed(&error),
    }
}

/// Prints why a request had no effect.
pub(super) fn failed(error: &ControlError) -> Exit {
    complain(error);
    match error {
        ControlError::Refused(_) => Exit::Problem,
        ControlError::Connect { .. } | ControlError::Unreachable { .. } | ControlError::Unavailable(_) => {
            Exit::CouldNotCheck
        }
    }
}
