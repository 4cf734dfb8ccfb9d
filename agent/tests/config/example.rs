//! The example has every key, and the schema documents every key.

use agent_core::plan::Policy;
use rds_lb_agent::config::Config;
use serde_json::Value;

use super::{EXAMPLE, GOOD, accepted, odd};

/// The example with its optional keys set.
fn example_with_everything() -> String {
    let switched_on = |line: &str| {
        let indent = line.len() - line.trim_start().len();
        match line.trim_start().strip_prefix('#') {
            Some(key) if !key.starts_with(' ') => format!("{}{key}", &line[..indent]),
            _ => line.to_owned(),
        }
    };
    EXAMPLE.lines().map(switched_on).collect::<Vec<_>>().join("\n")
}

#[test]
fn the_example_is_valid_and_shows_the_defaults() {
    assert_eq!(odd(EXAMPLE), [""; 0]);
    let example = accepted(EXAMPLE);
    let good = accepted(GOOD);
    assert_eq!(example.sessions.exempt.applications, ["pg_dump", "migrate-*"]);
    // It begins by observing.
    let (mode, routing) = (good.sessions.mode, good.routing);
    let sessions = Policy { exempt: good.sessions.exempt.clone(), mode, ..example.sessions.clone() };
    assert_eq!(Config { sessions, routing, ..example }, good);
}

#[test]
fn the_example_has_every_key_of_the_schema() {
    accepted(&example_with_everything());
    let example: Value = serde_saphyr::from_str(&example_with_everything()).unwrap();
    let schema = serde_json::to_value(schemars::schema_for!(rds_lb_agent::config::file::File)).unwrap();
    let mut missing = Vec::new();
    compare(&schema, &schema, &example, "", &mut missing);
    assert_eq!(missing, [""; 0], "keys that the example lacks");
}

/// Collects the keys of the schema that a value lacks. A list is as complete as all its items together.
fn compare(root: &Value, schema: &Value, value: &Value, path: &str, missing: &mut Vec<String>) {
    let schema = resolve(root, schema);
    for key in keys(schema) {
        let path = format!("{path}/{key}");
        match value.get(&key) {
            None => missing.push(path),
            Some(value) => compare(root, &schema["properties"][&key], value, &path, missing),
        }
    }
    if let (Some(of), Some(items)) = (schema.get("items"), value.as_array()) {
        let lacks = items.iter().map(|item| {
            let mut lacks = Vec::new();
            compare(root, of, item, path, &mut lacks);
            lacks
        });
        missing.extend(
            lacks.reduce(|one, other| one.into_iter().filter(|key| other.contains(key)).collect()).unwrap(),
        );
    }
    if let (Some(of @ Value::Object(_)), Some(entries)) =
        (schema.get("additionalProperties"), value.as_object())
    {
        entries.iter().for_each(|(key, value)| compare(root, of, value, &format!("{path}/{key}"), missing));
    }
}

/// Resolves a reference; of alternatives, the one with keys.
fn resolve<'a>(root: &'a Value, schema: &'a Value) -> &'a Value {
    if let Some(target) = schema["$ref"].as_str() {
        return resolve(root, root.pointer(target.trim_start_matches('#')).unwrap());
    }
    let alternatives = schema["anyOf"].as_array().into_iter().flatten();
    alternatives.map(|one| resolve(root, one)).find(|one| one.get("properties").is_some()).unwrap_or(schema)
}

fn keys(schema: &Value) -> Vec<String> {
    schema["properties"].as_object().into_iter().flat_map(|keys| keys.keys().cloned()).collect()
}

#[test]
fn every_key_of_the_schema_is_documented() {
    let schema = serde_json::to_value(schemars::schema_for!(rds_lb_agent::config::file::File)).unwrap();
    let mut seen = 0;
    let definitions = schema["$defs"].as_object().unwrap().iter();
    for (name, definition) in definitions.chain([(&"File".to_owned(), &schema)]) {
        for (key, value) in definition["properties"].as_object().into_iter().flatten() {
            seen += 1;
            let words = value["description"].as_str().unwrap_or_default();
            assert!(words.len() > 8, "{name}.{key} says what it is");
        }
    }
    assert!(seen > 40, "{seen} keys");
}
