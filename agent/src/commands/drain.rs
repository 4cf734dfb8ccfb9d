//! `drain`: drains a server through the running agent, and waits until its sessions are gone if asked to.

use std::time::Duration;

use reqwest::Method;
use serde_json::Value;
use tokio::time::{Instant, sleep};

use super::{
    Exit, complain,
    control::answer,
    print,
    sessions::{activity, rows},
};
use crate::{api::control::ask, cli::Drain};

/// Between two looks at the sessions.
const LOOK: Duration = Duration::from_secs(1);

/// So many looks in a row have to find none: a session is listed for its server only once the proxy has
/// been asked for it.
const LOOKS: u32 = 3;

pub(super) async fn drain(arguments: &Drain) -> Exit {
    let server = &arguments.server;
    let lasts = arguments.lasts.map(|lasts| lasts.as_secs().to_string());
    let mut query = vec![("server", server.as_str())];
    query.extend(lasts.iter().map(|lasts| ("lasts", lasts.as_str())));
    if arguments.until_empty {
        query.push(("empty", "true"));
    }
    if arguments.force {
        query.push(("force", "true"));
    }
    let drained = answer(&arguments.control, Method::POST, "/drain", &query, |answer| {
        let left = answer.get("others_left").and_then(Value::as_u64);
        if let Some(left) = left {
            print(format_args!(
                "{server}: forced: other servers of the backend that take new sessions: {left}"
            ));
        }
        let effect =
            if left == Some(0) { "the backend accepts no new session" } else { "new sessions go elsewhere" };
        print(format_args!("{server}: draining: {effect}; `undrain {server}` ends it"));
    })
    .await;
    if drained != Exit::Ok || !arguments.until_empty { drained } else { empty(arguments).await }
}

/// Waits until no session is left on the server.
async fn empty(arguments: &Drain) -> Exit {
    let server = &arguments.server;
    let until = Instant::now() + arguments.timeout;
    let (mut printed, mut empty) = (None, 0);
    loop {
        let left = match ask(&arguments.control.control, Method::GET, "/sessions", &[]).await {
            Ok(sessions) => on(&sessions, server),
            Err(error) => {
                complain(error);
                return Exit::CouldNotCheck;
            }
        };
        empty = if left.is_empty() { empty + 1 } else { 0 };
        if empty == LOOKS {
            print(format_args!("{server}: no session is left"));
            return Exit::Ok;
        }
        if Instant::now() >= until {
            complain(format_args!(
                "{server}: drained, and not empty after {} s:",
                arguments.timeout.as_secs()
            ));
            left.iter().for_each(print);
            return Exit::Problem;
        }
        if empty == 0 && printed != Some(left.len()) {
            printed = Some(left.len());
            print(format_args!("{server}: {} sessions are left", left.len()));
        }
        sleep(LOOK).await;
    }
}

/// The sessions of a server, each with what keeps it.
fn on(sessions: &Value, server: &str) -> Vec<String> {
    let on = |row: &&Value| row.get("server").and_then(Value::as_str) == Some(server);
    let line = |row: &Value| {
        let pid = row.get("pid").and_then(Value::as_u64).unwrap_or(0);
        let user = row.get("user").and_then(Value::as_str).unwrap_or("-");
        format!("  pid {pid} user {user}: {}", activity(row))
    };
    rows(sessions).iter().filter(on).map(line).collect()
}
