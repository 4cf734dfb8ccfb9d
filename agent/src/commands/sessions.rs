//! `sessions`: the sessions that the running agent knows, oldest first, in 80 columns.

use reqwest::Method;
use serde_json::Value;

use super::{
    Exit, complain,
    control::failed,
    screen::{Column, age, table, watch, width, wrapped},
};
use crate::{
    api::control::ask,
    cli::{self, Format},
    status::Status,
};

pub(super) async fn sessions(arguments: &cli::Sessions) -> Exit {
    let control = &arguments.control;
    watch(arguments.watch, async || {
        let read =
            async |path| ask(&control.control, Method::GET, path, &[]).await.map_err(|error| failed(&error));
        let sessions = read("/sessions").await?;
        if control.output.output == Format::Json {
            return Ok(if arguments.watch { lines(&sessions) } else { format!("{sessions:#}") });
        }
        let status: Status = serde_json::from_value(read("/state").await?).map_err(|error| {
            complain(format_args!("the agent is of another version, use --output json: {error}"));
            Exit::CouldNotCheck
        })?;
        Ok(screen(&status, &sessions, width()))
    })
    .await
}

/// One line for each session.
fn lines(sessions: &Value) -> String {
    rows(sessions).iter().fold(String::new(), |lines, row| lines + &row.to_string() + "\n")
}

pub(super) fn rows(sessions: &Value) -> &[Value] {
    sessions.as_array().map(Vec::as_slice).unwrap_or_default()
}

fn screen(status: &Status, sessions: &Value, width: usize) -> String {
    const COLUMNS: [Column; 8] = [
        Column::flexible("SERVER", 14),
        Column::number("PID"),
        Column::flexible("USER", 8),
        Column::flexible("CLIENT", 9),
        Column::fixed("ACTIVITY"),
        Column::number("AGE"),
        Column::number("LIMIT"),
        Column::flexible("HELD", 14),
    ];
    let rows = rows(sessions);
    let paused = if status.paused.is_some() { "  PAUSED" } else { "" };
    let header = format!(
        "{} sessions, {} due  mode {}  max_age {}{paused}\n",
        rows.len(),
        status.sessions.due,
        status.mode,
        age(status.max_age_s)
    );
    let mut text = header + &table(&COLUMNS, &rows.iter().map(cells).collect::<Vec<_>>(), width);
    let held_for =
        |reason: &str| rows.iter().any(|row| row.get("hold").and_then(Value::as_str) == Some(reason));
    if held_for("capacity_floor") {
        text += &wrapped(
            "capacity_floor: the server is not drained, because too few others would be left. Its sessions go in \
             mode `retire`; without the right to close sessions in the database, with `close_via: proxy` as well",
            width,
            "  ",
        );
    }
    if rows.iter().any(|row| row.get("server").is_none_or(Value::is_null)) {
        text += &wrapped(
            "?: not matched with a session of a proxy yet, which is done once after the start of the agent and before \
             a session is due. !: the proxy and the database disagree on its age",
            width,
            "  ",
        );
    }
    text
}

fn cells(row: &Value) -> Vec<String> {
    let text = |key: &str| row.get(key).and_then(Value::as_str).filter(|text| !text.is_empty());
    let seconds = |key: &str| row.get(key).and_then(Value::as_f64);
    let server = text("server").map_or_else(
        || {
            format!(
                "{} {}",
                text("instance").unwrap_or("-"),
                if text("join") == Some("not_joined") { "?" } else { "!" }
            )
        },
        str::to_owned,
    );
    let held = match text("hold") {
        Some("observing") => "would be retired",
        Some(reason) => reason,
        None => "",
    };
    vec![
        server,
        row.get("pid").and_then(Value::as_u64).unwrap_or(0).to_string(),
        text("user").unwrap_or("-").to_owned(),
        text("source").or_else(|| text("client")).map_or_else(|| "-".to_owned(), without_port),
        match (text("activity").unwrap_or("-"), seconds("idle_s")) {
            ("idle", Some(idle)) => format!("idle {}", age(idle)),
            ("in_transaction", _) => "in tx".to_owned(),
            (activity, _) => activity.to_owned(),
        },
        seconds("age_s").map_or_else(|| "-".to_owned(), age),
        seconds("limit_s").map_or_else(|| "-".to_owned(), age),
        held.to_owned(),
    ]
}

fn without_port(address: &str) -> String {
    address
        .parse::<std::net::SocketAddr>()
        .map_or_else(|_| address.to_owned(), |address| address.ip().to_string())
}

/// `idle 3.2s`, `in_transaction`, ... with the reason for which it is held.
pub(super) fn activity(row: &Value) -> String {
    let word = row.get("activity").and_then(Value::as_str).unwrap_or("-");
    let idle = row.get("idle_s").and_then(Value::as_f64).map(|idle| format!(" {idle:.1}s"));
    let hold = row.get("hold").and_then(Value::as_str).map(|hold| format!(" ({hold})"));
    format!("{word}{}{}", idle.unwrap_or_default(), hold.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn row(server: Option<&str>, user: &str, activity: &str, hold: Option<&str>) -> Value {
        json!({
            "instance": "orders/a", "pid": 41234, "user": user, "server": server, "source": "10.0.2.15:51234",
            "client": "10.0.1.7:40001", "join": if server.is_some() { "joined" } else { "not_joined" },
            "activity": activity, "idle_s": (activity == "idle").then_some(3.2), "hold": hold,
            "age_s": 900.4, "limit_s": 845.0,
        })
    }

    #[test]
    fn sessions_fit_80_columns() {
        let status = super::super::status::example();
        let sessions = json!([
            row(Some("orders_write/a"), "app", "in_transaction", Some("in_transaction")),
            row(Some("orders_read/b"), "reporting", "idle", Some("observing")),
            row(None, "app", "running", None),
        ]);
        let text = screen(&status, &sessions, 80);
        assert_eq!(text, include_str!("sessions.txt"), "\n{text}");
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
    }

    #[test]
    fn json_is_one_line_for_each_session_while_it_is_repeated() {
        assert_eq!(lines(&json!([{"pid": 1}, {"pid": 2}])), "{\"pid\":1}\n{\"pid\":2}\n");
    }
}
