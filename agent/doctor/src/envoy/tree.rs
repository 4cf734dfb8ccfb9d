//! YAML or JSON → a tree in which every value has its line. Envoy accepts both `snake_case` and `camelCase` keys.

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, SeqAccess, Visitor},
};
use serde_saphyr::Spanned;

#[derive(Clone, Debug, Default)]
pub struct Node {
    /// Of an alias, the line of what it stands for: that is where it is changed.
    pub line: u64,
    value: Value,
}

#[derive(Clone, Debug, Default)]
enum Value {
    #[default]
    Null,
    Bool(bool),
    Number(f64),
    Text(String),
    List(Vec<Node>),
    Map(Vec<(String, Node)>),
}

/// # Errors
/// The line, and what is wrong there.
pub fn parse(text: &str) -> Result<Node, (u64, String)> {
    serde_saphyr::from_str(text).map_err(|error| {
        let line = error.location().map_or(0, |location| location.line());
        // Its text may quote the file, which may have secrets: only the first line, without the excerpt.
        let what = error.without_snippet().to_string();
        (line, what.lines().next().unwrap_or("it cannot be read").to_owned())
    })
}

impl Node {
    pub fn get(&self, key: &str) -> Option<&Node> {
        let Value::Map(entries) = &self.value else { return None };
        entries.iter().find(|(name, _)| same(name, key)).map(|(_, node)| node)
    }

    /// The value below several keys.
    pub fn at(&self, path: &[&str]) -> Option<&Node> {
        path.iter().try_fold(self, |node, key| node.get(key))
    }

    /// The elements of a list below a key; none if there is no list.
    pub fn list(&self, key: &str) -> &[Node] {
        match self.get(key).map(|node| &node.value) {
            Some(Value::List(nodes)) => nodes,
            _ => &[],
        }
    }

    pub fn text(&self) -> Option<&str> {
        match &self.value {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    pub fn text_at(&self, path: &[&str]) -> Option<&str> {
        self.at(path).and_then(Node::text)
    }

    /// A number, or a text that is one.
    pub fn number(&self) -> Option<f64> {
        match &self.value {
            Value::Number(number) => Some(*number),
            Value::Text(text) => text.parse().ok(),
            _ => None,
        }
    }

    pub fn is_true(&self) -> bool {
        matches!(self.value, Value::Bool(true))
    }

    /// A duration of the form `1.5s`, in seconds.
    pub fn seconds(&self) -> Option<f64> {
        self.text()?.strip_suffix('s')?.parse().ok()
    }

    /// Whether a node anywhere below satisfies `test`, and the first of them.
    pub fn find(&self, test: &dyn Fn(&str, &Node) -> bool) -> Option<&Node> {
        match &self.value {
            Value::List(nodes) => nodes.iter().find_map(|node| node.find(test)),
            Value::Map(entries) => entries
                .iter()
                .find_map(|(key, node)| if test(key, node) { Some(node) } else { node.find(test) }),
            _ => None,
        }
    }
}

/// Whether two keys differ only in their style.
fn same(name: &str, key: &str) -> bool {
    let plain = |text: &str| {
        text.bytes().filter(|byte| *byte != b'_').map(|byte| byte.to_ascii_lowercase()).collect::<Vec<u8>>()
    };
    name == key || plain(name) == plain(key)
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let spanned = Spanned::<Value>::deserialize(deserializer)?;
        Ok(Self { line: spanned.defined.line(), value: spanned.value })
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Any)
    }
}

struct Any;

impl<'de> Visitor<'de> for Any {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("YAML or JSON")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number(value as f64))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number(value as f64))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Value::Number(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::Text(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Value, A::Error> {
        let mut nodes = Vec::new();
        while let Some(node) = list.next_element()? {
            nodes.push(node);
        }
        Ok(Value::List(nodes))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = map.next_entry()? {
            entries.push(entry);
        }
        Ok(Value::Map(entries))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn values_have_lines_in_yaml_and_json() {
        let yaml = parse("a: 1\nb:\n- {c: x, d: 0.5s}\n- true\nshared: &s {on: true}\nused: *s\n").unwrap();
        assert_eq!(yaml.get("b").unwrap().list("").len(), 0);
        assert_eq!(yaml.list("b")[0].at(&["d"]).unwrap().seconds(), Some(0.5));
        assert_eq!(yaml.list("b")[1].line, 4);
        assert_eq!(yaml.at(&["used", "on"]).unwrap().line, 5);
        let json = parse("{\"connectTimeout\": \"5s\",\n \"n\": [1, null,\n 2]}").unwrap();
        assert_eq!(json.get("connect_timeout").unwrap().seconds(), Some(5.0));
        assert_eq!(json.list("n")[2].line, 3);
    }

    #[test]
    fn a_mistake_has_its_line() {
        assert_eq!(parse("a: 1\nb: [\n").unwrap_err().0, 2);
    }

    proptest! {
        #[test]
        fn any_text_is_parsed_or_refused(text in any::<String>(), likely in "[a-c:\\[\\]{} \n\"&*-]{0,60}") {
            let _ = parse(&text);
            let _ = parse(&likely);
        }
    }
}
