//! `sessions`, `writer`, `pause`, `resume`: requests to the running agent.

use std::time::Duration;

use reqwest::Method;
use serde_json::Value;

use super::{Exit, complain, print, print_json};
use crate::{
    api::control::{ControlError, ask},
    cli::{Control, Format, Pause, Sessions, Writer},
};

pub(super) async fn sessions(arguments: &Sessions) -> Exit {
    loop {
        let exit = answer(&arguments.control, Method::GET, "/sessions", &[], table).await;
        if !arguments.watch || exit != Exit::Ok {
            return exit;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

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
    let query = [("reason", arguments.reason.as_str())];
    answer(&arguments.control, Method::POST, "/pause", &query, |_| {
        print("paused: until `resume` no session is closed, no server drained, and none kept DOWN but for its role in a writer backend");
    })
    .await
}

pub(super) async fn resume(arguments: &Control) -> Exit {
    answer(arguments, Method::POST, "/resume", &[], |_| print("resumed")).await
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
        Err(error @ (ControlError::Unreachable { .. } | ControlError::Unavailable(_))) => {
            complain(error);
            Exit::CouldNotCheck
        }
        Err(error @ ControlError::Refused(_)) => {
            complain(error);
            Exit::Problem
        }
    }
}

fn table(value: &Value) {
    let rows = value.as_array().map(Vec::as_slice).unwrap_or_default();
    print(format_args!(
        "{:<20} {:>8} {:<16} {:<24} {:<36} {:>9} {:>9}",
        "INSTANCE", "PID", "USER", "SERVER", "ACTIVITY", "AGE", "LIMIT"
    ));
    for row in rows {
        let text = |key: &str| row.get(key).and_then(Value::as_str).unwrap_or("-").to_owned();
        let seconds = |key: &str| row.get(key).and_then(Value::as_f64).unwrap_or(0.0);
        let server = row.get("server").and_then(Value::as_str).map_or_else(|| text("join"), str::to_owned);
        let pid = row.get("pid").and_then(Value::as_u64).unwrap_or(0);
        print(format_args!(
            "{:<20} {pid:>8} {:<16} {server:<24} {:<36} {:>8.1}s {:>8.1}s",
            text("instance"),
            text("user"),
            activity(row),
            seconds("age_s"),
            seconds("limit_s"),
        ));
    }
    if rows.iter().any(|row| row.get("hold").and_then(Value::as_str) == Some("capacity_floor")) {
        print(
            "capacity_floor: the server is not drained, because too few others would be left. Its sessions go in mode \
             `retire`; without the right to close sessions in the database, with `close_via: proxy` as well",
        );
    }
}

/// `idle 3.2s`, `in_transaction`, ... with the reason for which it is held.
pub(super) fn activity(row: &Value) -> String {
    let word = row.get("activity").and_then(Value::as_str).unwrap_or("-");
    let idle = row.get("idle_s").and_then(Value::as_f64).map(|idle| format!(" {idle:.1}s"));
    let hold = row.get("hold").and_then(Value::as_str).map(|hold| format!(" ({hold})"));
    format!("{word}{}{}", idle.unwrap_or_default(), hold.unwrap_or_default())
}
