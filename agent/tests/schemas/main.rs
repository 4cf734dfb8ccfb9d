//! The documented outputs of the program conform to the schemas that it prints.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test")]

mod check;

use std::{
    io::Write,
    process::{Command, Output, Stdio},
};

use check::violations;
use serde_json::{Value, json};

fn agent(arguments: &[&str], input: &str) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_rds-lb-agent"))
        .env_clear()
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

fn schema(of: &str) -> Value {
    serde_json::from_slice(&agent(&["schema", of], "").stdout).unwrap()
}

const CONFIG: &str = "databases:
  - name: orders
    engine: postgresql
    user: lb_agent
    instances:
      - {name: a, endpoint: 'orders-a.abc.eu-west-1.rds.amazonaws.com:5432'}
proxies:
  - haproxy: {socket: /nonexistent/admin.sock}
    backends:
      orders_write: {database: orders, role: writer, servers: {a: a}}
";

/// Exit code and report of `validate` for a configuration on standard input.
fn validated(arguments: &[&str], text: &str) -> (Option<i32>, Value) {
    let all = [&["validate", "-", "--output", "json"], arguments].concat();
    let output = agent(&all, text);
    let report = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(violations(&schema("validate"), &report), [""; 0], "{report}");
    (output.status.code(), report)
}

#[test]
fn validate_prints_each_error_with_its_position_as_json() {
    let (code, report) = validated(&[], CONFIG);
    assert_eq!((code, &report["valid"], &report["errors"]), (Some(0), &json!(true), &json!([])));
    let wrong = CONFIG.replace("postgresql", "PostgreSQL").replace("    user", "    usr: x\n    user");
    let (code, report) = validated(&[], &wrong);
    let found = |index: usize| {
        let error = &report["errors"][index];
        (error["line"].as_u64().unwrap(), error["hint"].as_str().unwrap().to_owned())
    };
    assert_eq!((code, report["errors"].as_array().unwrap().len()), (Some(64), 2), "{report}");
    assert_eq!(found(0), (3, "did you mean `postgresql`?".to_owned()));
    assert_eq!(found(1).0, 4);
}

#[test]
fn validate_live_reports_a_proxy_that_cannot_be_asked() {
    let (code, report) = validated(&["--live"], CONFIG);
    assert_eq!(code, Some(2));
    assert_eq!(report["differences"][0]["proxy"], "/nonexistent/admin.sock");
    assert!(report["differences"][0]["error"].as_str().unwrap().contains("is HAProxy running"), "{report}");
}

#[test]
fn the_schemas_describe_every_field() {
    for of in ["status", "sessions", "handoffs", "validate"] {
        let schema = schema(of);
        assert!(schema["title"].is_string(), "{schema}");
        assert!(schema.to_string().contains("description"), "{of}");
    }
}

#[test]
fn values_that_do_not_conform_are_found() {
    let schema = json!({"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]});
    assert_eq!(violations(&schema, &json!({"a": 1})), [""; 0]);
    assert_eq!(violations(&schema, &json!({"a": "x", "b": 1})).len(), 2);
    assert_eq!(violations(&schema, &json!({})).len(), 1);
}
