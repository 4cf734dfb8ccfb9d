//! `handoffs`: the client sessions that failed, in 80 columns: causes, top offenders, and the last ones.

use reqwest::Method;

use super::{
    Exit, complain,
    control::failed,
    screen::{Column, age, table, watch, width, wrapped},
};
use crate::{
    api::control::ask,
    cli::{self, Format},
    hand_offs::view::{Count, FailureRow, HandOffsView},
};

/// Entries of each list on the screen.
const TOP: usize = 3;

pub(super) async fn handoffs(arguments: &cli::Handoffs) -> Exit {
    let control = &arguments.control;
    let (since, most) = (arguments.since.as_secs().to_string(), arguments.most.to_string());
    watch(arguments.watch, async || {
        let query = [("since", &*since), ("most", &*most)];
        let value = ask(&control.control, Method::GET, "/handoffs", &query).await;
        let value = value.map_err(|error| failed(&error))?;
        if control.output.output == Format::Json {
            return Ok(if arguments.watch { value.to_string() } else { format!("{value:#}") });
        }
        let view = serde_json::from_value(value).map_err(|error| {
            complain(format_args!("the agent is of another version, use --output json: {error}"));
            Exit::CouldNotCheck
        })?;
        Ok(screen(&view, width()))
    })
    .await
}

fn screen(view: &HandOffsView, width: usize) -> String {
    let since = age(view.since_s);
    let mut text =
        format!("{} client sessions failed in the last {since}, {} suspected\n", view.failed, view.suspected);
    for log in &view.logs {
        let line = format!(
            "log of {}: {} sessions, {} elsewhere, {} unread, {} lost",
            log.proxy, log.sessions, log.elsewhere, log.unread, log.lost
        );
        text += &wrapped(&line, width, "  ");
        if log.sessions + log.notices + log.elsewhere + log.unread == 0 {
            let hint =
                "  no line has arrived yet: are the lines of `rds-lb-agent render haproxy` in haproxy.cfg?";
            text += &wrapped(hint, width, "  ");
        }
    }
    if !view.phases.is_empty() {
        let columns = [Column::fixed("PHASE"), Column::number("COUNT"), Column::flexible("LIKELY CAUSE", 20)];
        let rows: Vec<Vec<String>> = view
            .phases
            .iter()
            .map(|phase| vec![phase.phase.clone(), phase.count.to_string(), phase.cause.clone()])
            .collect();
        text.push('\n');
        text += &table(&columns, &rows, width);
        for phase in view.phases.iter().take(TOP) {
            text += &wrapped(&format!("{}: {}", phase.phase, phase.advice), width, "  ");
        }
    }
    let tops = [
        ("servers", &view.servers),
        ("client networks", &view.networks),
        ("databases", &view.databases),
        ("client networks, suspected", &view.suspected_networks),
    ];
    if tops.iter().any(|(_, counts)| !counts.is_empty()) {
        text.push('\n');
    }
    for (what, counts) in tops.into_iter().filter(|(_, counts)| !counts.is_empty()) {
        text += &wrapped(&format!("{what}: {}", top(counts)), width, "  ");
    }
    if !view.last.is_empty() {
        text.push('\n');
        text += &last(&view.last, width);
    }
    text
}

/// `a 12, b 3, 4 more`.
fn top(counts: &[Count]) -> String {
    let mut all: Vec<String> =
        counts.iter().take(TOP).map(|count| format!("{} {}", count.name, count.count)).collect();
    let more = counts.len().saturating_sub(TOP);
    if more > 0 {
        all.push(format!("{more} more"));
    }
    all.join(", ")
}

fn last(rows: &[FailureRow], width: usize) -> String {
    const COLUMNS: [Column; 6] = [
        Column::fixed("UTC"),
        Column::fixed("PHASE"),
        Column::flexible("CLIENT", 12),
        Column::flexible("SERVER", 12),
        Column::number("AGE"),
        Column::flexible("STATE", 2),
    ];
    let cells = |row: &FailureRow| {
        // The clock time of an RFC 3339 timestamp.
        let time = row.at.get(11..19).unwrap_or(&row.at).to_owned();
        let mark = match row.certainty.as_str() {
            "suspected" => "?",
            "likely" => "~",
            _ => "",
        };
        let server = row.server.as_deref().unwrap_or("-");
        vec![
            time,
            format!("{}{mark}", row.phase),
            row.source.clone(),
            format!("{}/{server}", row.backend),
            age(row.age_s),
            row.state.clone(),
        ]
    };
    let mut text = table(&COLUMNS, &rows.iter().map(cells).collect::<Vec<_>>(), width);
    if rows.iter().any(|row| row.certainty != "certain") {
        let legend = "?: suspected by its shape alone, it may have gone well. ~: likely, the agent's own logins or queries \
                      failed at that time too";
        text += &wrapped(legend, width, "  ");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_fit_80_columns() {
        let view: HandOffsView = serde_json::from_str(include_str!("handoffs.json")).unwrap();
        let text = screen(&view, 80);
        assert_eq!(text, include_str!("handoffs.txt"), "\n{text}");
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
    }
}
