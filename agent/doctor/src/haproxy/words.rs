//! One line of a HAProxy configuration → its words, by HAProxy's rules for quotes, escapes, comments and
//! environment variables (section 2.2 and 2.3 of its manual).

use std::collections::BTreeMap;

/// Variables that are known. An unknown one is left as it is written.
pub type Environment = BTreeMap<String, String>;

/// The words before a comment.
///
/// # Errors
/// A quote that is not closed, or an invalid escape or variable name, as a sentence.
pub fn words(line: &str, environment: &Environment) -> Result<Vec<String>, &'static str> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote: Option<char> = None;
    let mut rest = line.chars().peekable();
    while let Some(c) = rest.next() {
        match (c, quote) {
            ('"' | '\'', None) => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (c, Some(open)) if c == open => quote = None,
            ('\\', None | Some('"')) => {
                let word = word.get_or_insert_default();
                match rest.peek().copied() {
                    Some(plain @ (' ' | '\\' | '#' | '"' | '\'' | '$')) => word.push(plain),
                    Some('t') => word.push('\t'),
                    Some('r') => word.push('\r'),
                    Some('n') => word.push('\n'),
                    Some('x') => {
                        rest.next();
                        let mut digit = || rest.next().and_then(|digit| digit.to_digit(16));
                        let code = digit().zip(digit()).map(|(high, low)| high * 16 + low);
                        word.push(code.and_then(char::from_u32).ok_or("`\\x` needs two hexadecimal digits")?);
                        continue;
                    }
                    _ => {
                        word.push('\\');
                        continue;
                    }
                }
                rest.next();
            }
            ('$', Some('"')) => {
                let braces = rest.next_if_eq(&'{').is_some();
                let mut name = String::new();
                while let Some(c) = rest.next_if(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.')) {
                    name.push(c);
                }
                let mut default = None;
                let mut split = false;
                if braces {
                    let mut tail = String::new();
                    loop {
                        match rest.next() {
                            Some('}') => break,
                            Some(c) => tail.push(c),
                            None => return Err("`${` is not closed"),
                        }
                    }
                    if let Some(shorter) = tail.strip_suffix("[*]") {
                        split = true;
                        tail.truncate(shorter.len());
                    }
                    default = tail.strip_prefix('-').map(str::to_owned);
                }
                if !name.starts_with(|c: char| c.is_ascii_alphabetic() || matches!(c, '_' | '.')) {
                    return Err("`$` in double quotes begins a variable; write `\\$` for the character");
                }
                let value = match (environment.get(&name), default) {
                    (Some(value), _) => value.clone(),
                    (None, Some(default)) => default,
                    (None, None) => format!("${{{name}}}"),
                };
                if split {
                    let mut parts = value.split(' ');
                    word.get_or_insert_default().push_str(parts.next().unwrap_or_default());
                    for part in parts {
                        words.extend(word.replace(part.to_owned()));
                    }
                } else {
                    word.get_or_insert_default().push_str(&value);
                }
            }
            (c, Some(_)) => word.get_or_insert_default().push(c),
            ('#', None) => break,
            ('\n' | '\r', None) => break,
            (c, None) if c.is_ascii_whitespace() => words.extend(word.take()),
            (c, None) => word.get_or_insert_default().push(c),
        }
    }
    if quote.is_some() {
        return Err("a quote is not closed");
    }
    words.extend(word);
    Ok(words)
}

/// A time as HAProxy reads it, in milliseconds: a number with a unit, `ms` without one.
pub fn milliseconds(word: &str) -> Option<u64> {
    let end = word.find(|c: char| !c.is_ascii_digit()).unwrap_or(word.len());
    let (number, unit) = word.split_at_checked(end)?;
    let number: u64 = number.parse().ok()?;
    match unit {
        "us" => Some(number / 1000),
        "" | "ms" => Some(number),
        "s" => number.checked_mul(1000),
        "m" => number.checked_mul(60_000),
        "h" => number.checked_mul(3_600_000),
        "d" => number.checked_mul(86_400_000),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn split(line: &str) -> Vec<String> {
        let environment = [("HOST", "db"), ("LIST", "a b c")];
        let environment = environment.map(|(name, value)| (name.to_owned(), value.to_owned()));
        words(line, &environment.into()).unwrap()
    }

    #[test]
    fn words_are_split_as_haproxy_splits_them() {
        assert_eq!(split("  server a  b:1\tcheck # no"), ["server", "a", "b:1", "check"]);
        assert_eq!(split(r#"agent-send "w/a\n""#), ["agent-send", "w/a\n"]);
        assert_eq!(split(r"agent-send 'w/a\n'"), ["agent-send", r"w/a\n"]);
        assert_eq!(split(r"agent-send w/a\n"), ["agent-send", "w/a\n"]);
        assert_eq!(split(r"a\ b \#c \\ \x41 \q"), ["a b", "#c", "\\", "A", "\\q"]);
        assert_eq!(split(r#"a"b c"d '' e#f"#), ["ab cd", "", "e"]);
    }

    #[test]
    fn variables_are_replaced_only_in_double_quotes() {
        assert_eq!(
            split(r#""$HOST:1" "${HOST}x" "${NO-eu}" "$NO" $HOST '$HOST'"#),
            ["db:1", "dbx", "eu", "${NO}", "$HOST", "$HOST"]
        );
        assert_eq!(split(r#"bind "${LIST[*]}" x"#), ["bind", "a", "b", "c", "x"]);
        assert_eq!(split(r#""\$HOST""#), ["$HOST"]);
    }

    #[test]
    fn mistakes_are_named() {
        for line in ["log \"x", "log 'x", r"a \xg1", r#""$1""#, r#""${A""#] {
            assert!(words(line, &Environment::new()).is_err(), "{line}");
        }
    }

    #[test]
    fn times_have_units() {
        let cases =
            [("5s", 5000), ("1h", 3_600_000), ("250", 250), ("10ms", 10), ("1500us", 1), ("2d", 172_800_000)];
        for (word, expected) in cases {
            assert_eq!(milliseconds(word), Some(expected), "{word}");
        }
        for word in ["", "s", "5x", "-1s", "99999999999999999999s", "18446744073709551615d"] {
            assert_eq!(milliseconds(word), None, "{word}");
        }
    }

    proptest! {
        #[test]
        fn any_line_is_split_or_refused(line in any::<String>()) {
            let _ = words(&line, &Environment::new());
            let _ = milliseconds(&line);
        }
    }
}
