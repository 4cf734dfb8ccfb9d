//! The pages that are generated from the code: each test fails when its page is not current.
//! `UPDATE_DOCS=1 cargo test -p rds-lb-agent --test docs` writes the pages.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test")]

use std::{
    fmt::Write,
    fs,
    path::{Path, PathBuf},
};

use rds_lb_agent::{
    config::file::File,
    metrics::{DESCRIPTIONS, Format, Metrics},
};
use serde_json::Value;

fn agent() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Compares a page with the generated text, or writes it.
fn assert_current(page: &str, expected: &str) {
    let path = agent().join("../docs").join(page);
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, expected).unwrap();
    }
    let written = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        written == expected,
        "docs/{page} is not current: run UPDATE_DOCS=1 cargo test -p rds-lb-agent --test docs"
    );
}

// === docs/METRICS.md ===

#[test]
fn the_page_of_metrics_is_current() {
    let mut page = String::from(
        "# Metrics\n\n\
         Exposed at `/metrics` in the Prometheus text format, and as OpenMetrics to clients that accept it. Times are \
         in seconds. Beside these there are `process_cpu_seconds_total`, `process_resident_memory_bytes`, \
         `process_open_fds` and `process_start_time_seconds`. This page is generated from `agent/src/metrics`; a \
         test keeps it current.\n\n\
         | metric | type | labels | meaning |\n|---|---|---|---|\n",
    );
    for metric in DESCRIPTIONS {
        let labels: Vec<String> = metric.labels.iter().map(|label| format!("`{label}`")).collect();
        let (name, kind, help) = (metric.name(), metric.kind, metric.help());
        writeln!(page, "| `{name}` | {kind} | {} | {help} |", labels.join(", ")).unwrap();
    }
    assert_current("METRICS.md", &page);
}

#[test]
fn exposed_metrics_have_the_documented_names_types_and_help() {
    let text = Metrics::default().text(Format::OpenMetrics);
    let exposed: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("# TYPE rdslb_")).collect();
    assert!(!exposed.is_empty());
    for line in exposed {
        let (name, kind) = line.split_once(' ').unwrap();
        let metric = DESCRIPTIONS
            .iter()
            .find(|one| one.name().trim_end_matches("_total").strip_prefix("rdslb_") == Some(name))
            .unwrap();
        assert_eq!(metric.kind, kind, "{name}");
        assert!(text.contains(&format!("# HELP rdslb_{name} {}\n", metric.help())), "{name}");
    }
}

#[test]
fn metrics_have_base_units_and_plain_names() {
    for metric in DESCRIPTIONS {
        let (name, kind) = (metric.name(), metric.kind);
        assert!(name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'), "{name}");
        for unit in ["_ms", "_millis", "_minutes", "_percent", "_micros", "_kb"] {
            assert!(!name.contains(unit), "{name} is not in seconds, bytes or ratios");
        }
        assert!(kind != "histogram" || name.ends_with("_seconds"), "{name} does not end with its unit");
    }
}

#[test]
fn every_metric_is_changed_by_some_code() {
    let mut code = String::new();
    let mut folders = vec![agent().join("src")];
    while let Some(folder) = folders.pop() {
        for path in sources(&folder) {
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|kind| kind == "rs") {
                code.push_str(&fs::read_to_string(path).unwrap());
            }
        }
    }
    let code: String = code.split_whitespace().collect();
    for metric in DESCRIPTIONS {
        let changed = ["get_or_create", "inc", "set", "observe"]
            .iter()
            .any(|by| code.contains(&format!(".{}.{by}", metric.field)));
        assert!(changed, "nothing changes {}", metric.name());
    }
}

// === docs/DOCTOR.md ===

#[test]
fn the_page_of_the_doctor_is_current() {
    let page = format!(
        "# Doctor\n\n\
         `rds-lb-agent doctor` reads configurations and reports mistakes: what is wrong and where, why it matters, and \
         how to fix it. It changes nothing.\n\n\
         ```sh\n\
         rds-lb-agent doctor --haproxy /etc/haproxy/haproxy.cfg --config /etc/rds-lb-agent/config.yaml\n\
         rds-lb-agent doctor --envoy /etc/envoy/envoy.yaml --strict --output json\n\
         rds-lb-agent doctor --live --config /etc/rds-lb-agent/config.yaml --through orders=127.0.0.1:5432\n\
         ```\n\n\
         Errors break logins or sessions, or leave the agent without effect. Warnings cost logins or sessions in a \
         failover or a restart. Notes never fail. `--allow RULE` leaves out what a rule finds. With `--config`, the \
         proxies are compared with the agent's configuration: names, addresses, sockets. With `--live`, it logs in to each \
         instance as the agent does, and through the ports of a proxy that `--through` names: the certificate that a client \
         sees there has to be that of the endpoint. `--aws` reads what the AWS command line prints as JSON (`aws rds \
         describe-db-instances`, `describe-db-clusters`, `describe-db-parameters`, `aws ec2 describe-security-groups`, `aws iam \
         get-policy-version`); it asks AWS nothing.\n\n\
         In HAProxy's files, conditions (`.if`) that depend on the version are decided by `--haproxy-version`; lines under \
         a condition that cannot be decided count. Variables are taken from the environment and from `setenv`; a rule \
         makes no statement about a value with an unknown variable. Only proxies that lead to databases are judged: by \
         the agent's configuration, a port of PostgreSQL or MySQL, an RDS name, or `agent-check`.\n\n\
         This page is generated from the rules; a test keeps it current.\n{}",
        doctor::catalogue::page()
    );
    assert_current("DOCTOR.md", &page);
}

// === docs/CONFIGURATION.md ===

#[test]
fn the_page_of_the_configuration_is_current() {
    let schema = serde_json::to_value(schemars::schema_for!(File)).unwrap();
    let mut page = String::from(
        "# Configuration\n\n\
         The configuration is one YAML file, by default `/etc/rds-lb-agent/config.yaml`. Durations have a unit \
         (`250ms`, `30s`, `14m`, `1h30m`), shares a percent sign. Unknown keys are errors. `rds-lb-agent validate` \
         checks a file, `rds-lb-agent schema` prints this reference as a JSON Schema for editors, and \
         `agent/example.yaml` has every key. This page is generated from the code; a test keeps it current.\n",
    );
    let mut sections = vec![("(top)".to_owned(), schema.clone())];
    let mut done = Vec::new();
    while let Some((path, section)) = sections.pop() {
        let mut below = Vec::new();
        let title = if path == "(top)" { "The file".to_owned() } else { format!("`{path}`") };
        writeln!(page, "\n## {title}\n\n{}\n", words(&section)).unwrap();
        writeln!(page, "| key | | meaning |\n|---|---|---|").unwrap();
        for (key, value) in section["properties"].as_object().unwrap() {
            let required =
                section["required"].as_array().into_iter().flatten().any(|one| one == key.as_str());
            let (mark, part) = (if required { "required" } else { "" }, part(&schema, value));
            let mut meaning = words(value);
            if let Some((suffix, section)) = part.section {
                let parent = path.strip_prefix("(top)").map_or_else(|| format!("{path}."), str::to_owned);
                below.push((format!("{parent}{key}{suffix}"), section.clone()));
            }
            if !part.words.is_empty() {
                write!(meaning, "<br>{}", part.words.join("<br>")).unwrap();
            }
            writeln!(page, "| `{key}` | {mark} | {meaning} |").unwrap();
        }
        done.push(path);
        sections.extend(below.into_iter().rev());
    }
    assert!(done.len() > 8, "{done:?}");
    assert_current("CONFIGURATION.md", &page);
}

fn words(schema: &Value) -> String {
    schema["description"].as_str().unwrap_or_default().replace('\n', " ").replace('|', "\\|")
}

/// The value of a key: a section of its own, or words to choose from.
#[derive(Default)]
struct Part<'a> {
    /// The suffix of the section's path after the key, and the section.
    section: Option<(&'static str, &'a Value)>,
    words: Vec<String>,
}

fn part<'a>(root: &'a Value, schema: &'a Value) -> Part<'a> {
    if let Some(target) = schema["$ref"].as_str() {
        return part(root, root.pointer(target.trim_start_matches('#')).unwrap());
    }
    if schema.get("properties").is_some() {
        return Part { section: Some(("", schema)), words: Vec::new() };
    }
    for (key, suffix) in [("items", "[]"), ("additionalProperties", ".NAME")] {
        if let Some(of @ Value::Object(_)) = schema.get(key) {
            let inner = part(root, of);
            return Part { section: inner.section.map(|(_, section)| (suffix, section)), ..Part::default() };
        }
    }
    let mut all = Part::default();
    for one in ["anyOf", "oneOf"].into_iter().filter_map(|key| schema[key].as_array()).flatten() {
        if let Some(word) = one["const"].as_str() {
            all.words.push(format!("`{word}`: {}", words(one)));
        }
        let inner = part(root, one);
        all.section = all.section.or(inner.section);
        all.words.extend(inner.words);
    }
    all
}

// === secrets ===

/// Names that suggest a secret.
const SECRETIVE: [&str; 6] = ["token", "secret", "password", "credential", "signature", "access_key"];

/// Allowed names: ages, states and metrics, but no secrets.
const HARMLESS: [&str; 7] = [
    "token_age_s",
    "agent_token_age_s",
    "token_expires_in_s",
    "token_failures",
    "token_expires",
    "token_asked",
    "no token",
];

#[test]
fn no_event_has_a_field_for_a_secret() {
    let mut seen = 0;
    for path in sources(&agent().join("src/events")) {
        for (number, line) in fs::read_to_string(&path).unwrap().lines().enumerate() {
            let code = line.split("//").next().unwrap().trim();
            // `name: Type,`, `name = value,` and `pub name: Type,` declare or log a field.
            let name = code.trim_start_matches("pub ").split([':', '=', ' ', ',']).next().unwrap();
            let declares = name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_') && !name.is_empty();
            seen += usize::from(declares);
            let secretive = SECRETIVE.iter().any(|word| name.contains(word)) && !HARMLESS.contains(&name);
            assert!(!(declares && secretive), "{}:{}: {line}", path.display(), number + 1);
            assert!(!line.contains("expose_secret"), "{}:{}: {line}", path.display(), number + 1);
        }
    }
    assert!(seen > 100, "{seen} fields were looked at");
}

fn sources(folder: &Path) -> Vec<PathBuf> {
    fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect()
}

// === docs/EVENTS.md ===

/// A log line of an event, as it stands in the source.
struct LogLine {
    level: String,
    message: String,
    fields: Vec<String>,
}

#[test]
fn the_page_of_events_is_current() {
    let mut page = String::from(
        "# Events\n\n\
         What the agent logs at level INFO and above, by the type that writes the line. ERROR \
         needs action now, WARN needs action soon, INFO reports a change. Fields have the same names and units \
         everywhere: `_s` is seconds, `_ms` milliseconds; other values are words. This page is \
         generated from `agent/src/events`; a test keeps it current.\n\n\
         | level | message | fields | meaning | what to do |\n|---|---|---|---|---|\n",
    );
    let mut files = sources(&agent().join("src/events"));
    files.sort();
    let mut rows = Vec::new();
    for file in files {
        let text = fs::read_to_string(file).unwrap();
        let text = text.split("#[cfg(test)]").next().unwrap();
        for (name, body) in events(text) {
            let (meaning, action) = meaning(text, &name);
            for line in log_lines(&body) {
                let urgent = line.level == "ERROR" || line.level == "WARN";
                assert!(!meaning.is_empty(), "{name} has no documentation");
                assert!(!urgent || !action.is_empty(), "{name} does not say what to do");
                let action = if urgent { action.as_str() } else { "" };
                let fields: Vec<String> = line.fields.iter().map(|field| format!("`{field}`")).collect();
                let (message, fields) = (&line.message, fields.join(" "));
                rows.push(format!("| {} | {message} | {fields} | {meaning} | {action} |\n", line.level));
            }
        }
    }
    assert!(rows.len() > 40, "{}", rows.len());
    for level in ["ERROR", "WARN", "INFO"] {
        let of_level = rows.iter().filter(|row| row.starts_with(&format!("| {level} ")));
        page.extend(of_level.map(String::as_str));
    }
    assert_current("EVENTS.md", &page);
}

/// The name of each event, and the body of its `emit`.
fn events(text: &str) -> Vec<(String, String)> {
    let mut events = Vec::new();
    for part in text.split("\nimpl Event for ").skip(1) {
        let name: String = part.chars().take_while(|c| c.is_alphanumeric()).collect();
        events.push((name, part.split("\n}\n").next().unwrap().to_owned()));
    }
    events
}

/// The documentation of an event: its meaning, and what to do.
fn meaning(text: &str, name: &str) -> (String, String) {
    let before = [format!("struct {name} "), format!("struct {name}<")];
    let at = before.iter().find_map(|words| text.find(words)).unwrap_or_else(|| panic!("{name}"));
    let end = text[..at].rfind('\n').unwrap();
    let is_above = |line: &&str| line.starts_with('/') || line.starts_with('#');
    let mut lines: Vec<&str> = text[..end].lines().rev().take_while(is_above).collect();
    lines.reverse();
    let doc: Vec<&str> = lines.iter().filter_map(|line| line.strip_prefix("///")).map(str::trim).collect();
    let doc = doc.join(" ");
    match doc.split_once("Do: ") {
        Some((meaning, action)) => (meaning.trim().to_owned(), action.trim().to_owned()),
        None => (doc.trim().to_owned(), String::new()),
    }
}

/// The calls of `error!`, `warn!` and `info!` in a piece of code.
fn log_lines(body: &str) -> Vec<LogLine> {
    let mut lines = Vec::new();
    for level in ["error", "warn", "info"] {
        for (at, call) in body.match_indices(&format!("{level}!(")) {
            let before = body[..at].chars().next_back();
            if before.is_some_and(|c| c.is_alphanumeric() || c == '_') {
                continue;
            }
            let arguments = arguments(&body[at + call.len()..]);
            let message = arguments.iter().find(|argument| argument.starts_with('"')).unwrap();
            let message: String = message.trim_matches('"').replace("\\\n", "");
            let fields = arguments.iter().filter(|argument| !argument.starts_with('"')).map(|argument| {
                let name = argument.split('=').next().unwrap().trim().trim_start_matches('%');
                name.rsplit('.').next().unwrap().to_owned()
            });
            lines.push(LogLine {
                level: level.to_uppercase(),
                message: message.split_whitespace().collect::<Vec<_>>().join(" "),
                fields: fields.collect(),
            });
        }
    }
    lines
}

/// The arguments of a call, up to its closing parenthesis.
fn arguments(code: &str) -> Vec<String> {
    let (mut depth, mut quoted, mut escaped) = (0, false, false);
    let (mut found, mut current) = (Vec::new(), String::new());
    for c in code.chars() {
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            _ if quoted => {}
            '(' | '[' | '{' => depth += 1,
            ')' if depth == 0 => break,
            ')' | ']' | '}' => depth -= 1,
            ',' if depth == 0 => {
                found.push(std::mem::take(&mut current).trim().to_owned());
                continue;
            }
            _ => {}
        }
        current.push(c);
    }
    found.push(current.trim().to_owned());
    found.retain(|argument| !argument.is_empty());
    found
}
