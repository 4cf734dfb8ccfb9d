//! `validate`: checks a configuration file, the files that it names, and with `--live` the running proxies.

use agent_database::TlsTrust;
use haproxy::runtime::{Connection, Limits, RuntimeError};
use schemars::JsonSchema;
use serde::Serialize;

use super::{Exit, complain, print, print_json};
use crate::{
    cli::{Format, Validate},
    config::{self, Config, Problem, ProxyKind},
    metrics::labels::Word,
    seen::{Difference, Expected, differences},
};

/// What `validate --output json` prints. Within one `schema_version` fields are only added.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Report {
    /// The version of this format: 1.
    pub schema_version: u32,
    pub file: String,
    /// Whether the agent would start with the file. Warnings and differences do not count.
    pub valid: bool,
    pub errors: Vec<Finding>,
    pub warnings: Vec<Finding>,
    /// Absent without `--live`.
    pub differences: Option<Vec<ProxyDifferences>>,
}

/// An error or a warning in the file.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Finding {
    /// From 1; 0 if it is about no line.
    pub line: u64,
    /// From 1.
    pub column: u64,
    pub message: String,
    pub hint: Option<String>,
}

/// The differences between a running HAProxy and the file.
#[derive(Debug, Serialize, JsonSchema)]
pub struct ProxyDifferences {
    pub proxy: String,
    pub differences: Vec<Difference>,
    /// Why it cannot be asked.
    pub error: Option<String>,
}

pub(super) async fn validate(arguments: &Validate) -> Exit {
    let path = arguments.file.as_ref().unwrap_or(&arguments.config.config);
    let (report, text) = match config::load(path) {
        Ok(loaded) => {
            let errors = unusable_files(&loaded.config);
            let live = arguments.live && errors.is_empty();
            let report = Report {
                schema_version: 1,
                file: path.display().to_string(),
                valid: errors.is_empty(),
                warnings: loaded.warnings.problems.iter().map(finding).collect(),
                differences: if live { Some(compare(&loaded.config).await) } else { None },
                errors,
            };
            let text = format!("{}{}", loaded.warnings, file_errors(&report));
            if arguments.output.output == Format::Text && report.valid {
                print(summary(&report.file, &loaded.config));
            }
            (report, text)
        }
        Err(problems) => {
            let report = Report {
                schema_version: 1,
                file: path.display().to_string(),
                valid: false,
                errors: problems.problems.iter().map(finding).collect(),
                warnings: Vec::new(),
                differences: None,
            };
            (report, problems.to_string())
        }
    };
    match arguments.output.output {
        Format::Json => print_json(&report),
        Format::Text => {
            eprint!("{text}");
            report.differences.iter().flatten().for_each(show);
        }
    }
    exit(&report)
}

fn exit(report: &Report) -> Exit {
    let mut proxies = report.differences.iter().flatten();
    if !report.valid {
        Exit::Usage
    } else if proxies.clone().any(|proxy| !proxy.differences.is_empty()) {
        Exit::Problem
    } else if proxies.any(|proxy| proxy.error.is_some()) {
        Exit::CouldNotCheck
    } else {
        Exit::Ok
    }
}

fn summary(file: &str, config: &Config) -> String {
    format!(
        "{file}: ok: {} instances, {} servers, routing: {}, sessions: {}",
        config.instances().count(),
        config.servers().len(),
        Word::of(&config.routing),
        Word::of(&config.sessions.mode)
    )
}

fn finding(problem: &Problem) -> Finding {
    let Problem { line, column, message, hint, .. } = problem.clone();
    Finding { line, column, message, hint }
}

/// The CA files that cannot be used: the agent would start without their databases.
fn unusable_files(config: &Config) -> Vec<Finding> {
    let unusable = config.databases.iter().filter_map(|database| {
        let error = TlsTrust::load(database.trust.clone()).err()?;
        Some(Finding {
            line: database.lines.ca_file,
            column: 0,
            message: format!("database `{}`: {error}", database.name),
            hint: Some("the other databases run without this one".to_owned()),
        })
    });
    unusable.collect()
}

fn file_errors(report: &Report) -> String {
    let text = |error: &Finding| {
        let hint = error.hint.as_deref().unwrap_or_default();
        format!("error: {}:{}: {}\n  hint: {hint}\n", report.file, error.line, error.message)
    };
    report.errors.iter().map(text).collect()
}

// === --live ===

async fn compare(config: &Config) -> Vec<ProxyDifferences> {
    let mut compared = Vec::new();
    for proxy in &config.proxies {
        let ProxyKind::Haproxy(haproxy) = &proxy.kind else { continue };
        let names =
            proxy.servers.iter().map(|server| (server.id.backend.to_string(), server.id.server.to_string()));
        let expected = Expected {
            servers: names.collect(),
            agent_port: config.listen.agent_check.port(),
            http_port: config.listen.http.port(),
        };
        // Without an agent that observes the agent checks, the configuration of HAProxy is all there is.
        let found = states(&haproxy.socket).await.map(|states| differences(&expected, &states, |_| None));
        let (differences, error) = match found {
            Ok(differences) => (differences, None),
            Err(error) => (Vec::new(), Some(error.to_string())),
        };
        compared.push(ProxyDifferences { proxy: proxy.name(), differences, error });
    }
    compared
}

async fn states(socket: &haproxy::Address) -> Result<Vec<haproxy::runtime::ServerState>, RuntimeError> {
    Connection::open(socket, Limits::default()).await?.servers_state(None).await
}

fn show(proxy: &ProxyDifferences) {
    let ProxyDifferences { proxy, differences, error } = proxy;
    match error {
        Some(error) => complain(error),
        None if differences.is_empty() => print(format_args!("{proxy}: HAProxy matches the configuration")),
        None => differences.iter().for_each(|one| eprintln!("difference: {proxy}: {one}")),
    }
}
