//! `status`: the state of the running agent on one screen.

use std::fmt::Write;

use reqwest::Method;

use super::{
    Exit, complain,
    control::failed,
    screen::{Column, age, age_or_dash, cut, table, watch, width, wrapped},
};
use crate::{
    api::control::ask,
    cli::{self, Format},
    status::{
        DrainStatus, InstanceStatus, MissingStatus, ServerStatus, ShortageStatus, Status, TopologyStatus,
    },
};

/// Log lines on the screen.
const EVENTS: usize = 8;

pub(super) async fn status(arguments: &cli::Status) -> Exit {
    let control = &arguments.control;
    watch(arguments.watch, async || {
        let value =
            ask(&control.control, Method::GET, "/state", &[]).await.map_err(|error| failed(&error))?;
        if control.output.output == Format::Json {
            // One line for each, so that a reader can tell them apart.
            let text = if arguments.watch { value.to_string() } else { format!("{value:#}") };
            return Ok(text);
        }
        let status: Status = serde_json::from_value(value).map_err(|error| {
            complain(format_args!("the agent is of another version, use --output json: {error}"));
            Exit::CouldNotCheck
        })?;
        Ok(screen(&status, width()))
    })
    .await
}

/// The whole screen.
fn screen(status: &Status, width: usize) -> String {
    let mut text = header(status, width);
    let mut section = |part: String| {
        if !part.is_empty() {
            text.push('\n');
            text.push_str(&part);
        }
    };
    section(instances(&status.instances, width));
    section(servers(&status.servers, width));
    section(sessions(status, width));
    section(list("DRAINS", status.drains.iter().map(drain), width));
    let differences = status.differences.iter().map(|difference| difference.message.clone());
    section(list("DIFFERENCES between a proxy and the configuration", differences, width));
    section(list(
        "DIFFERENCES between AWS and the configuration",
        status.topologies.iter().flat_map(topology),
        width,
    ));
    let skipped = status.events.len().saturating_sub(EVENTS);
    let events = status.events.iter().skip(skipped).map(|line| {
        let time = line.at.get(11..19).unwrap_or(&line.at);
        cut(&format!("{time} {:<5} {line}", line.level), width - 2)
    });
    section(list("EVENTS (UTC)", events, width));
    text
}

fn header(status: &Status, width: usize) -> String {
    let Status { agent, mode, routing, .. } = status;
    let mut text = format!(
        "rds-lb-agent {}  mode {mode}  routing {routing}  max_age {}\n",
        agent.version,
        age(status.max_age_s)
    );
    if let Some(pause) = &status.paused {
        let by = pause.by.as_deref().map(|by| format!(" by {by}")).unwrap_or_default();
        let reason = if pause.reason.is_empty() { String::new() } else { format!(": {}", pause.reason) };
        text += &wrapped(&format!("PAUSED since {}{by}{reason}", pause.since), width, "  ");
    }
    for disagreement in &status.disagreements {
        let others: Vec<String> =
            disagreement.others.iter().map(|(instance, agents)| format!("{instance} ({agents})")).collect();
        let line = format!(
            "DISAGREEMENT about the writer of {}: {} here, {} for other agents",
            disagreement.database,
            disagreement.own,
            others.join(", ")
        );
        text += &wrapped(&line, width, "  ");
    }
    for group in &status.paused_groups {
        text += &wrapped(&format!("sessions kept, their clients did not return: {group}"), width, "  ");
    }
    if agent.decided_age_s > 5.0 {
        let stuck = format!("NOT DECIDING for {}: what follows is that old", age(agent.decided_age_s));
        text += &wrapped(&stuck, width, "  ");
    }
    for proxy in status.proxies.iter().filter(|proxy| !proxy.answers) {
        let missing = if proxy.kind == "envoy" { "is not connected" } else { "does not answer" };
        text += &wrapped(&format!("{} {missing}", proxy.proxy), width, "  ");
    }
    text
}

fn instances(instances: &[InstanceStatus], width: usize) -> String {
    const COLUMNS: [Column; 7] = [
        Column::flexible("INSTANCE", 8),
        Column::fixed("ROLE"),
        Column::fixed("STATUS"),
        Column::number("LAST LOGIN"),
        Column::number("LAG"),
        Column::number("TOKEN"),
        Column::number("CERTIFICATE"),
    ];
    let row = |instance: &InstanceStatus| {
        vec![
            instance.instance.clone(),
            instance.role.clone().unwrap_or_else(|| "-".into()),
            instance.status.clone(),
            instance
                .last_login_age_s
                .map_or_else(|| "never".into(), |seconds| format!("{} ago", age(seconds))),
            instance.lag_s.map_or_else(|| "-".into(), |lag| format!("{lag:.1}s")),
            age_or_dash(instance.token_expires_in_s),
            age_or_dash(instance.certificate_expires_in_s),
        ]
    };
    let rows: Vec<_> = instances.iter().map(row).collect();
    let mut text = table(&COLUMNS, &rows, width);
    for instance in instances {
        if let Some(fault) = &instance.fault {
            text += &wrapped(&format!("  {}: {fault}", instance.instance), width, "    ");
        }
        if let Some(agents) = instance.agents.filter(|agents| *agents > 1) {
            let permits = instance.shared_permits.unwrap_or(0);
            let line = format!("  {}: {agents} agents, {permits} shared permits here", instance.instance);
            text += &wrapped(&line, width, "    ");
        }
        if !instance.lost.is_empty() {
            let lost = format!("  {}: cannot be read: {}", instance.instance, instance.lost.join(", "));
            text += &wrapped(&lost, width, "    ");
        }
        for MissingStatus { lacks, advice } in &instance.missing {
            text += &wrapped(&format!("  {}: lacks {lacks}: {advice}", instance.instance), width, "    ");
        }
    }
    text
}

fn servers(servers: &[ServerStatus], width: usize) -> String {
    const COLUMNS: [Column; 6] = [
        Column::flexible("SERVER", 16),
        Column::fixed("WANTS"),
        Column::fixed("VERDICT"),
        Column::fixed("PROXY"),
        Column::number("SESSIONS"),
        Column::flexible("WHY", 8),
    ];
    if servers.is_empty() {
        return String::new();
    }
    let row = |server: &ServerStatus| {
        let shown = server.shown.as_ref();
        vec![
            server.server.clone(),
            server.wanted.clone(),
            server.verdict.clone(),
            shown.map_or_else(|| "-".into(), |shown| proxy_state(&shown.status, shown.state)),
            shown.map_or_else(|| "-".into(), |shown| shown.sessions.to_string()),
            server.why.clone(),
        ]
    };
    table(&COLUMNS, &servers.iter().map(row).collect::<Vec<_>>(), width)
}

/// HAProxy's own word, where it has one: it shows `no check` for a server with an agent check alone.
fn proxy_state(status: &str, state: crate::seen::ShownState) -> String {
    use crate::seen::ShownState as S;
    let own = match state {
        S::Up => "UP",
        S::Down => "DOWN",
        S::Drain => "DRAIN",
        S::Maint => "MAINT",
        S::Unresolved => "MAINT (dns)",
        S::Weightless => "UP weight 0",
    };
    let own_is_better = status.is_empty() || status == "no check" || state == S::Weightless;
    if own_is_better { own.to_owned() } else { status.to_owned() }
}

fn sessions(status: &Status, width: usize) -> String {
    let sessions = &status.sessions;
    let mut line = format!(
        "SESSIONS known {}, due {}, oldest {}, retired {}",
        sessions.known,
        sessions.due,
        age_or_dash(sessions.oldest_s),
        sessions.retired
    );
    if !sessions.held.is_empty() {
        let held = sessions.held.iter().map(|(reason, count)| format!("{reason} {count}"));
        let _ = write!(line, "; held: {}", held.collect::<Vec<_>>().join(", "));
    }
    let mut text = wrapped(&line, width, "  ");
    for shortage in &sessions.shortages {
        let ShortageStatus { instance, sessions, needed_per_s, allowed_per_s, login_budget } = shortage;
        let line = format!(
            "  {instance}: {sessions} sessions need {needed_per_s:.1} closes a second, `login_budget` allows \
             {allowed_per_s:.1}; set it to {login_budget}"
        );
        text += &wrapped(&line, width, "    ");
    }
    text
}

fn topology(topology: &TopologyStatus) -> Vec<String> {
    let TopologyStatus { database, asked, error, differences, answered_age_s, .. } = topology;
    let seen = answered_age_s.map_or_else(|| "never".into(), |seconds| format!("{} ago", age(seconds)));
    let silent = error.as_ref().map(|error| format!("{database}: {asked}, last answer {seen}: {error}"));
    differences.iter().cloned().chain(silent).collect()
}

fn drain(drain: &DrainStatus) -> String {
    let by = match &*drain.by {
        "agent" => "by the agent",
        "operator" => "by an operator",
        _ => "set in HAProxy itself",
    };
    let mut line = format!("{}: {by}", drain.server);
    if let Some(reason) = drain.reason.as_ref().filter(|reason| *reason != "operator") {
        let _ = write!(line, " ({reason})");
    }
    match &*drain.phase {
        "sending" => line.push_str(", not shown by the proxy yet"),
        "undoing" => line.push_str(", being ended"),
        _ => {}
    }
    if let Some(since) = &drain.since {
        let _ = write!(line, ", since {since}");
    }
    match (&drain.until, &*drain.by) {
        (Some(until), _) => drop(write!(line, ", until {until}")),
        (None, "operator") => line.push_str(", until `undrain`"),
        _ => {}
    }
    line
}

/// A title and an indented line for each item; nothing without items.
fn list(title: &str, items: impl Iterator<Item = String>, width: usize) -> String {
    let lines: String = items.map(|item| wrapped(&format!("  {item}"), width, "    ")).collect();
    if lines.is_empty() { lines } else { format!("{title}\n{lines}") }
}

#[cfg(test)]
pub(super) use tests::example;

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::{
        events::recent::Line,
        seen::{ShownServer, ShownState},
        status::{
            AgentStatus, DifferenceStatus, DisagreementStatus, PauseStatus, ProxyStatus, SessionsStatus,
            TopologyMember,
        },
    };

    fn server(name: &str, verdict: &str, why: &str, shown: (ShownState, &str, u64)) -> ServerStatus {
        let (state, status, sessions) = shown;
        ServerStatus {
            server: name.into(),
            proxy: "/run/haproxy/admin.sock".into(),
            instance: "orders/a".into(),
            wanted: "writer".into(),
            verdict: verdict.into(),
            reason: "proved".into(),
            why: why.into(),
            changes: "a login".into(),
            since: "2026-11-28T21:00:00Z".into(),
            shown: Some(ShownServer { state, status: status.into(), weight: 1, sessions }),
        }
    }

    fn instance(name: &str, status: &str, fault: Option<&str>) -> InstanceStatus {
        InstanceStatus {
            instance: name.into(),
            role: Some("writer".into()),
            status: status.into(),
            last_login: None,
            last_login_age_s: fault.is_none().then_some(12.3),
            login_failed_since: None,
            fault: fault.map(str::to_owned),
            lag_s: Some(0.04),
            token_expires: None,
            token_expires_in_s: Some(552.0),
            certificate_expires: None,
            certificate_expires_in_s: Some(29_376_000.0),
            lost: if fault.is_some() { vec!["sessions".into()] } else { Vec::new() },
            refusal: None,
            missing: if fault.is_none() {
                vec![MissingStatus {
                    lacks: "closing".into(),
                    advice: "GRANT pg_signal_backend TO lb_agent".into(),
                }]
            } else {
                Vec::new()
            },
            agents: fault.is_none().then_some(2),
            shared_permits: fault.is_none().then_some(3),
        }
    }

    pub(in crate::commands) fn example() -> Status {
        Status {
            schema_version: 1,
            agent: AgentStatus {
                version: "1.2.3".into(),
                pid: 7,
                started: "2026-11-28T20:00:00Z".into(),
                decided: "2026-11-28T21:42:10Z".into(),
                decided_age_s: 0.2,
            },
            mode: "retire".into(),
            routing: "act".into(),
            max_age_s: 840.0,
            paused: Some(PauseStatus {
                since: "2026-11-28T21:40:00Z".into(),
                by: Some("alice".into()),
                reason: "upgrade".into(),
            }),
            paused_groups: Vec::new(),
            instances: vec![
                instance("orders/a", "usable", None),
                instance(
                    "orders/b",
                    "silent",
                    Some("tcp: timed out after 3 s: no answer from 10.0.2.7:5432"),
                ),
            ],
            proxies: vec![ProxyStatus {
                proxy: "envoy:*".into(),
                kind: "envoy".into(),
                version: None,
                answers: false,
            }],
            servers: vec![
                server(
                    "orders_write/a",
                    "up",
                    "answers in the wanted role",
                    (ShownState::Up, "no check", 12),
                ),
                server("orders_read/b", "up", "answers in the wanted role", (ShownState::Maint, "MAINT", 0)),
                server(
                    "orders_read/a",
                    "down",
                    "the writer, and there are readers",
                    (ShownState::Down, "DOWN (agent)", 0),
                ),
            ],
            sessions: SessionsStatus {
                known: 12,
                due: 3,
                oldest_s: Some(838.0),
                retired: 301,
                held: BTreeMap::from([("in_transaction".to_owned(), 2), ("paused".to_owned(), 1)]),
                shortages: vec![ShortageStatus {
                    instance: "orders/a".into(),
                    sessions: 900,
                    needed_per_s: 1.5,
                    allowed_per_s: 1.0,
                    login_budget: 8,
                }],
            },
            disagreements: vec![DisagreementStatus {
                database: "orders".into(),
                own: "a".into(),
                others: BTreeMap::from([("b".to_owned(), 1)]),
            }],
            drains: vec![DrainStatus {
                server: "orders_read/c".into(),
                by: "operator".into(),
                phase: "in_force".into(),
                reason: Some("operator".into()),
                since: Some("2026-11-28T21:00:00Z".into()),
                until: None,
            }],
            differences: vec![DifferenceStatus {
                proxy: "/run/haproxy/admin.sock".into(),
                message: "HAProxy has no backend `orders_raed`; did you mean `orders_read`?".into(),
                difference: None,
            }],
            topologies: vec![TopologyStatus {
                database: "orders".into(),
                asked: "cluster orders".into(),
                answered: Some("2026-11-28T21:20:10Z".into()),
                answered_age_s: Some(1_320.0),
                error: Some("rds:DescribeDBClusters: not allowed".into()),
                differences: vec!["AWS is deleting orders/b".into()],
                members: vec![TopologyMember {
                    identifier: "orders-b".into(),
                    status: "deleting".into(),
                    endpoint: None,
                    writer: Some(false),
                }],
            }],
            events: vec![Line {
                at: "2026-11-28T21:42:01Z".into(),
                level: "WARN".into(),
                message: "login failed".into(),
                fields: BTreeMap::from([("instance".to_owned(), "orders/b".to_owned())]),
            }],
        }
    }

    #[test]
    fn the_screen_fits_80_columns_and_shows_everything() {
        let text = screen(&example(), 80);
        assert_eq!(text, include_str!("status.txt"), "\n{text}");
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
    }
}
