//! `explain`: why a server has its verdict, why a session is still there, and what was decided before.

use std::fmt::Write;

use reqwest::Method;
use serde_json::Value;

use super::{
    Exit, complain,
    control::failed,
    print, print_json,
    screen::{age, age_or_dash, width, wrapped},
    sessions::{activity, rows},
};
use crate::{
    api::control::{ControlError, ask},
    cli::{Explain, Format},
    config::nearest,
    events::recent::Line,
    status::{ServerStatus, Status},
};

/// Lines of history beside an explanation.
const EVENTS: usize = 5;

pub(super) async fn explain(arguments: &Explain) -> Exit {
    let result = match &arguments.subject {
        _ if arguments.history => history(arguments).await,
        Some(subject) if subject.contains('/') => server(arguments, subject).await,
        Some(pid) => session(arguments, pid).await,
        None => {
            complain("name a server as BACKEND/SERVER, a session by its PID, or use --history");
            return Exit::Usage;
        }
    };
    result.unwrap_or_else(|error| failed(&error))
}

async fn read(arguments: &Explain, path: &str, query: &[(&str, &str)]) -> Result<Value, ControlError> {
    ask(&arguments.control.control, Method::GET, path, query).await
}

async fn events(arguments: &Explain, about: &str, most: usize) -> Result<Vec<Line>, ControlError> {
    let most = most.to_string();
    let value = read(arguments, "/history", &[("about", about), ("most", &most)]).await?;
    Ok(serde_json::from_value(value).unwrap_or_default())
}

async fn history(arguments: &Explain) -> Result<Exit, ControlError> {
    let lines = events(arguments, arguments.subject.as_deref().unwrap_or_default(), usize::MAX).await?;
    match arguments.control.output.output {
        Format::Json => print_json(&lines),
        Format::Text => {
            for line in &lines {
                print(event(line));
            }
        }
    }
    Ok(Exit::Ok)
}

fn event(line: &Line) -> String {
    format!("{} {:<5} {line}", line.at, line.level)
}

// === a server ===

async fn server(arguments: &Explain, name: &str) -> Result<Exit, ControlError> {
    let value = read(arguments, "/state", &[]).await?;
    let Ok(status) = serde_json::from_value::<Status>(value) else {
        complain("the agent is of another version; `status --output json` has the facts");
        return Ok(Exit::CouldNotCheck);
    };
    let Some(server) = status.servers.iter().find(|server| server.server == name) else {
        let names: Vec<&str> = status.servers.iter().map(|server| &*server.server).collect();
        match nearest(name, &names) {
            Some(nearest) => complain(format_args!("no server `{name}`; did you mean `{nearest}`?")),
            None => complain(format_args!("no server `{name}`; there are {}", names.join(", "))),
        }
        return Ok(Exit::Problem);
    };
    if arguments.control.output.output == Format::Json {
        let instance = status.instances.iter().find(|instance| instance.instance == server.instance);
        let history = events(arguments, name, EVENTS).await?;
        print_json(&serde_json::json!({"server": server, "instance": instance, "history": history}));
        return Ok(Exit::Ok);
    }
    print(of_server(&status, server, width()).trim_end());
    let mut lines = events(arguments, name, EVENTS).await?;
    lines.extend(events(arguments, &server.instance, EVENTS).await?);
    lines.sort_by(|one, other| one.at.cmp(&other.at));
    if !lines.is_empty() {
        print("\nhistory");
        for line in &lines {
            print(wrapped(&format!("  {}", event(line)), width(), "    ").trim_end());
        }
    }
    Ok(Exit::Ok)
}

fn of_server(status: &Status, server: &ServerStatus, width: usize) -> String {
    let ServerStatus { verdict, reason, why, since, .. } = server;
    let mut text = format!("{}: {verdict} ({reason}) since {since}\n", server.server);
    let mut line =
        |name: &str, words: &str| text += &wrapped(&format!("  {name:<10} {words}"), width, "             ");
    line("why", why);
    line("changes by", &server.changes);
    if status.routing == "observe" {
        line("routing", "observe: the proxy does not get the verdict");
    }
    let shown = server.shown.as_ref().map_or_else(
        || "not read".to_owned(),
        |shown| format!("shows {}, weight {}, {} sessions", shown.status, shown.weight, shown.sessions),
    );
    line("proxy", &format!("{}: {shown}", server.proxy));
    for drain in status.drains.iter().filter(|drain| drain.server == server.server) {
        let since = drain.since.as_deref().unwrap_or("an unknown time");
        let until = drain.until.as_ref().map(|until| format!(", until {until}")).unwrap_or_default();
        let phase = drain.phase.replace('_', " ");
        line("drain", &format!("{phase}, by the {}, since {since}{until}", drain.by));
    }
    let names = [server.server.as_str(), server.server.split('/').next().unwrap_or_default()];
    for difference in &status.differences {
        let about = difference.difference.as_ref().is_some_and(|one| names.contains(&&*one.name));
        if about || difference.message.contains(&server.server) {
            line("difference", &difference.message);
        }
    }
    for instance in status.instances.iter().filter(|instance| instance.instance == server.instance) {
        let role = instance.role.as_deref().unwrap_or("unknown");
        line(
            "instance",
            &format!("{}: {}, role {role}, wanted {}", server.instance, instance.status, server.wanted),
        );
        let login =
            instance.last_login_age_s.map_or_else(|| "never".to_owned(), |ago| format!("{} ago", age(ago)));
        line("login", &format!("{login}; token valid for {}", age_or_dash(instance.token_expires_in_s)));
        if let Some(since) = &instance.login_failed_since {
            line("", &format!("logins fail since {since}"));
        }
        if let Some(fault) = &instance.fault {
            line("fault", fault);
        }
        if let Some(lag) = instance.lag_s {
            line("lag", &format!("{lag:.1}s"));
        }
    }
    text
}

// === a session ===

async fn session(arguments: &Explain, pid: &str) -> Result<Exit, ControlError> {
    let sessions = read(arguments, "/sessions", &[]).await?;
    let wanted: Option<u64> = pid.parse().ok();
    let of_pid = |row: &&Value| wanted.is_some() && row.get("pid").and_then(Value::as_u64) == wanted;
    let found: Vec<&Value> = rows(&sessions).iter().filter(of_pid).collect();
    if found.is_empty() {
        complain(format_args!("no session with PID {pid}; `sessions` lists them"));
        return Ok(Exit::Problem);
    }
    let history = events(arguments, pid, EVENTS).await?;
    if arguments.control.output.output == Format::Json {
        print_json(&serde_json::json!({"sessions": found, "history": history}));
        return Ok(Exit::Ok);
    }
    // Several instances may have the same PID.
    for row in &found {
        print(of_session(row, width()).trim_end());
    }
    for line in &history {
        print(event(line));
    }
    Ok(Exit::Ok)
}

fn of_session(row: &Value, width: usize) -> String {
    let text =
        |key: &str| row.get(key).and_then(Value::as_str).filter(|text| !text.is_empty()).unwrap_or("-");
    let seconds = |key: &str| row.get(key).and_then(Value::as_f64);
    let pid = row.get("pid").and_then(Value::as_u64).unwrap_or(0);
    let mut result = format!("{} pid {pid}\n", text("instance"));
    let mut line = |name: &str, words: &str| {
        let _ = write!(result, "{}", wrapped(&format!("  {name:<10} {words}"), width, "             "));
    };
    line("client", &format!("{} user {} application {}", text("source"), text("user"), text("application")));
    line("server", &format!("{} ({})", text("server"), text("join")));
    line("age", &format!("{}, limit {}", age_or_dash(seconds("age_s")), age_or_dash(seconds("limit_s"))));
    line("activity", &activity(row));
    match (row.get("explanation").and_then(Value::as_str), seconds("due_in_s")) {
        (Some(explanation), _) => line("held", explanation),
        (None, Some(due)) if due > 0.0 => line("due", &format!("in {}: nothing is done before", age(due))),
        (None, _) => line("due", "now: it is closed at its next quiet moment"),
    }
    result
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_server_is_explained_with_its_facts_and_what_would_change_it() {
        let mut status = super::super::status::example();
        status.servers[0].instance = "orders/b".into();
        status.drains[0].server = "orders_write/a".into();
        let text = of_server(&status, &status.servers[0], 80);
        assert_eq!(
            text,
            "orders_write/a: up (proved) since 2026-11-28T21:00:00Z
  why        answers in the wanted role
  changes by a login
  proxy      /run/haproxy/admin.sock: shows no check, weight 1, 12 sessions
  drain      in force, by the operator, since 2026-11-28T21:00:00Z
  instance   orders/b: silent, role writer, wanted writer
  login      never; token valid for 9m12s
  fault      tcp: timed out after 3 s: no answer from 10.0.2.7:5432
  lag        0.0s
"
        );
    }

    #[test]
    fn a_session_is_explained_with_what_holds_it() {
        let row = json!({
            "instance": "orders/a", "pid": 7, "user": "app", "application": "", "server": "orders_write/a",
            "source": "10.0.2.15:51234", "join": "joined", "activity": "in_transaction", "age_s": 900.0,
            "limit_s": 845.0, "hold": "in_transaction", "due_in_s": 0.0,
            "explanation": "it is in a transaction; it goes when the transaction has ended",
        });
        assert_eq!(
            of_session(&row, 80),
            "orders/a pid 7
  client     10.0.2.15:51234 user app application -
  server     orders_write/a (joined)
  age        15m00s, limit 14m05s
  activity   in_transaction (in_transaction)
  held       it is in a transaction; it goes when the transaction has ended
"
        );
    }
}
