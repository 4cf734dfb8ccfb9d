//! The configuration file: its meaning, its error messages, the example, and arbitrary text.
//!
//! - `meaning`: the meaning of a valid file.
//! - `mistakes`: errors and their texts. `late`: errors that would otherwise appear at run time.
//! - `program`: the same through the real program. `example`: the example and the schema.
//! - `any_text`: arbitrary text does not make the parser panic.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test")]

mod any_text;
mod example;
mod late;
mod meaning;
mod mistakes;
mod program;

use rds_lb_agent::config::{Config, Loaded, parse};

const FILE: &str = "rds-lb-agent.yaml";

const GOOD: &str = "\
databases:
  - name: orders
    engine: postgresql
    user: lb_agent
    instances:
      - {name: a, endpoint: 'orders-a.abc.eu-west-1.rds.amazonaws.com:5432'}
      - {name: b, endpoint: 'orders-b.abc.eu-west-1.rds.amazonaws.com:5432', connect: '10.0.2.7:5432'}
proxies:
  - haproxy: {socket: /run/haproxy/admin.sock, master: /run/haproxy/master.sock}
    backends:
      orders_write: {database: orders, role: writer, servers: {pg1: a, pg2: b}}
      orders_read: {database: orders, role: reader, servers: {pg1: a, pg2: b}}
sessions: {mode: retire, max_age: 14m}
";

const EXAMPLE: &str = include_str!("../../example.yaml");

/// An endpoint in it.
const A: &str = "'orders-a.abc.eu-west-1.rds.amazonaws.com:5432'";

/// `GOOD` with one part replaced.
fn edited(from: &str, to: &str) -> String {
    assert_eq!(GOOD.matches(from).count(), 1, "`{from}` is in the good file once");
    GOOD.replace(from, to)
}

fn accepted(text: &str) -> Config {
    match parse(FILE, text) {
        Ok(Loaded { config, .. }) => config,
        Err(problems) => panic!("refused:\n{problems}"),
    }
}

/// The error messages for a file.
fn refused(text: &str) -> String {
    match parse(FILE, text) {
        Ok(_) => panic!("accepted:\n{text}"),
        Err(problems) => problems.to_string(),
    }
}

/// The warnings for a file, as `line:column: message`.
fn odd(text: &str) -> Vec<String> {
    let warnings = parse(FILE, text).unwrap().warnings.problems;
    warnings
        .iter()
        .map(|warning| format!("{}:{}: {}", warning.line, warning.column, warning.message))
        .collect()
}

#[track_caller]
fn refused_with(from: &str, to: &str, golden: &str) {
    // Indented like the test it stands in.
    let golden = golden.trim_start_matches('\n');
    assert_eq!(refused(&edited(from, to)), golden);
}
