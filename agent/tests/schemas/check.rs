//! Checks a JSON value against a JSON Schema, as far as the schemas of the agent need it.

use serde_json::Value;

/// The violations, each with its path; none if the value conforms.
pub fn violations(schema: &Value, value: &Value) -> Vec<String> {
    let mut found = Vec::new();
    check(schema, schema, value, "", &mut found);
    found
}

fn check(root: &Value, schema: &Value, value: &Value, path: &str, found: &mut Vec<String>) {
    if let Some(reference) = schema["$ref"].as_str() {
        let target = root.pointer(reference.trim_start_matches('#')).unwrap();
        return check(root, target, value, path, found);
    }
    for keyword in ["anyOf", "oneOf"] {
        let choices = schema[keyword].as_array().map(Vec::as_slice).unwrap_or_default();
        let fits = |choice: &Value| {
            let mut inner = Vec::new();
            check(root, choice, value, path, &mut inner);
            inner.is_empty()
        };
        if !choices.is_empty() && !choices.iter().any(fits) {
            found.push(format!("{path}: {value} fits no choice"));
        }
    }
    let types: Vec<&str> = match &schema["type"] {
        Value::String(name) => vec![name],
        Value::Array(names) => names.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    };
    let is = |name: &str| match name {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "string" => value.is_string(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        other => panic!("type {other}"),
    };
    if !types.is_empty() && !types.iter().any(|name| is(name)) {
        found.push(format!("{path}: {value} is not {}", types.join(" or ")));
    }
    if let Some(choices) = schema["enum"].as_array()
        && !choices.contains(value)
    {
        found.push(format!("{path}: {value} is not one of {choices:?}"));
    }
    if let Some(constant) = schema.get("const")
        && constant != value
    {
        found.push(format!("{path}: {value} is not {constant}"));
    }
    if let Some(members) = value.as_object() {
        for required in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            if !members.contains_key(required) {
                found.push(format!("{path}: `{required}` is missing"));
            }
        }
        let properties = schema["properties"].as_object();
        for (name, member) in members {
            let path = format!("{path}/{name}");
            match (properties.and_then(|known| known.get(name)), &schema["additionalProperties"]) {
                (Some(schema), _) => check(root, schema, member, &path, found),
                (None, schema @ Value::Object(_)) => check(root, schema, member, &path, found),
                (None, _) if properties.is_some() => found.push(format!("{path} is not documented")),
                (None, _) => {}
            }
        }
    }
    for (index, item) in value.as_array().into_iter().flatten().enumerate() {
        if let Some(items) = schema.get("items") {
            check(root, items, item, &format!("{path}/{index}"), found);
        }
    }
}
