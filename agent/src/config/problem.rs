//! Errors and warnings about a configuration file, with positions and hints.

use std::{collections::BTreeSet, fmt};

use serde_saphyr::{Error, Location};

/// The maximum length of an excerpt, in characters.
const WIDTH: usize = 160;

/// An error or a warning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Line, from 1; 0 if the problem has no position.
    pub line: u64,
    /// Column, from 1.
    pub column: u64,
    pub message: String,
    pub hint: Option<String>,
    /// The last column of the excerpt, where the rest of the line may be a secret.
    pub(super) shown: Option<u64>,
}

impl Problem {
    pub(super) fn at(location: Location, message: impl Into<String>) -> Self {
        Self {
            line: location.line(),
            column: location.column(),
            message: message.into(),
            hint: None,
            shown: None,
        }
    }

    /// A problem whose text has a hint after a semicolon.
    pub(super) fn advising(location: Location, words: &str) -> Self {
        match words.split_once("; ") {
            Some((message, hint)) => Self::at(location, message).hint(hint),
            None => Self::at(location, words),
        }
    }

    #[must_use]
    pub(super) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

/// All errors, or all warnings, in a file. `Display` shows them with excerpts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problems {
    pub file: String,
    /// The problems, in the order of the file.
    pub problems: Vec<Problem>,
    /// `error` or `warning`.
    pub(super) kind: &'static str,
    text: String,
}

impl std::error::Error for Problems {}

impl Problems {
    pub(super) fn new(file: &str, text: &str, mut problems: Vec<Problem>) -> Self {
        problems.sort_by_key(|problem| (problem.line, problem.column));
        Self { file: file.to_owned(), text: text.to_owned(), problems, kind: "error" }
    }

    pub(super) fn unreadable(file: &str, error: &std::io::Error) -> Self {
        let problem = Problem {
            line: 0,
            column: 0,
            message: format!("cannot read it: {error}"),
            hint: Some("name the file with --config; `rds-lb-agent schema` documents every key".into()),
            shown: None,
        };
        Self::new(file, "", vec![problem])
    }

    /// The problems on one line, for logs.
    pub fn brief(&self) -> String {
        let brief = |problem: &Problem| {
            format!("{}:{}:{}: {}", self.file, problem.line, problem.column, problem.message)
        };
        self.problems.iter().map(brief).collect::<Vec<_>>().join("; ")
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for problem in &self.problems {
            show(f, self.kind, &self.file, &self.text, problem)?;
        }
        Ok(())
    }
}

fn show(f: &mut fmt::Formatter<'_>, kind: &str, file: &str, text: &str, problem: &Problem) -> fmt::Result {
    let Problem { line, column, message, hint, shown } = problem;
    if *line == 0 {
        writeln!(f, "{kind}: {file}: {message}")?;
    } else {
        writeln!(f, "{kind}: {file}:{line}:{column}: {message}")?;
        let at = usize::try_from(*line).unwrap_or(usize::MAX).saturating_sub(1);
        if let Some(source) = text.lines().nth(at) {
            let (source, caret) = excerpt(source, *column, *shown);
            writeln!(f, "  {line:>4} | {source}\n       | {caret}")?;
        }
    }
    match hint {
        Some(hint) => writeln!(f, "  hint: {hint}"),
        None => Ok(()),
    }
}

/// The excerpt of a line, and a line with a caret below it.
fn excerpt(source: &str, column: u64, shown: Option<u64>) -> (String, String) {
    let number = |value: u64| usize::try_from(value).unwrap_or(usize::MAX);
    let shown = shown.map_or(WIDTH, number).min(WIDTH);
    let before = number(column).saturating_sub(1).min(source.chars().count());
    // Control characters could change the terminal.
    let plain = |c: char| if c.is_control() && c != '\t' { '\u{fffd}' } else { c };
    let mut text: String = source.chars().take(shown).map(plain).collect();
    if source.chars().nth(shown).is_some() {
        text.push('…');
    }
    // Tabs are kept, so that the caret is below its word.
    let indent = source.chars().take(before).map(|c| if c == '\t' { '\t' } else { ' ' });
    (text, indent.chain(['^']).collect())
}

/// The problem for an error of the YAML parser.
pub(super) fn of_yaml(error: &Error) -> Problem {
    let error = error.without_snippet();
    let location = error.location().unwrap_or(Location::UNKNOWN);
    match error {
        Error::SerdeUnknownField { field, expected, .. } => {
            // The key and its colon.
            let shown = location.column() + field.chars().count() as u64;
            let problem = Problem::at(location, format!("unknown key `{field}`"));
            Problem { shown: Some(shown), ..problem }.hint(suggest(field, expected))
        }
        Error::SerdeUnknownVariant { variant, expected, .. } => {
            Problem::at(location, format!("`{variant}` is not a valid value"))
                .hint(suggest(variant, expected))
        }
        Error::SerdeMissingField { field, .. } => {
            Problem::at(location, format!("the key `{field}` is missing here"))
                .hint("`rds-lb-agent schema` documents every key")
        }
        Error::DuplicateMappingKey { key: Some(key), .. } => {
            Problem::at(location, format!("the key `{key}` is given twice")).hint("remove one of the two")
        }
        Error::MultipleDocuments { .. } => Problem::at(location, "a second document begins here")
            .hint("one file is one configuration: remove the `---`"),
        Error::Eof { .. } => Problem::at(location, "the file ends where something is still missing")
            .hint("at least a `databases` list is required; agent/example.yaml has every key"),
        Error::Unexpected { expected: "mapping start", .. } => {
            Problem::at(location, "a section of keys is expected here")
                .hint("write `key: value` lines, indented, or `{key: value}`")
        }
        Error::Unexpected { expected: "sequence start", .. } => {
            Problem::at(location, "a list is expected here")
                .hint("begin each item with `- ` on a line of its own, or write `[one, two]`")
        }
        Error::InvalidScalar { ty, .. } if ty.starts_with('u') => {
            Problem::at(location, "a whole number, not negative, is expected here")
                .hint("write digits alone, without a unit")
        }
        Error::SerdeInvalidType { expected, .. } => {
            Problem::at(location, format!("{expected} is expected here"))
                .hint("`rds-lb-agent schema` documents every key")
        }
        other => {
            let text = other.to_string();
            // The parser's text repeats the position.
            let message = text.lines().next().unwrap_or("not YAML").trim_start_matches("error: ");
            let message = message.split_once(" at line ").map_or(message, |(message, _)| message);
            Problem::at(location, message.to_owned()).hint("check the indentation and the quotes around here")
        }
    }
}

/// The most similar choice, if one is similar enough to be meant.
pub fn nearest<'a>(wrong: &str, choices: &'a [impl AsRef<str>]) -> Option<&'a str> {
    choices
        .iter()
        .map(AsRef::as_ref)
        .map(|choice| (strsim::jaro_winkler(wrong, choice), choice))
        .filter(|(likeness, _)| *likeness > 0.8)
        .max_by(|one, other| one.0.total_cmp(&other.0))
        .map(|(_, choice)| choice)
}

/// The word of this program for a word of another one.
const SYNONYMS: [(&str, &str); 14] = [
    ("aurora-postgresql", "postgresql"),
    ("postgres", "postgresql"),
    ("pgsql", "postgresql"),
    ("aurora-mysql", "mysql"),
    ("primary", "writer"),
    ("master", "writer"),
    ("leader", "writer"),
    ("read-write", "writer"),
    ("replica", "reader"),
    ("secondary", "reader"),
    ("standby", "reader"),
    ("slave", "reader"),
    ("read-only", "reader"),
    ("both", "any"),
];

/// The choice that is meant by its synonym or by a similar word, whatever the case.
pub(super) fn suggested<'a, C: AsRef<str>>(wrong: &str, choices: &'a [C]) -> Option<&'a str> {
    let wrong = wrong.to_lowercase();
    let (_, meant) = SYNONYMS.iter().find(|(other, _)| *other == wrong).unwrap_or(&("", ""));
    let synonym = choices.iter().map(AsRef::as_ref).find(|choice| choice == meant);
    synonym.or_else(|| nearest(&wrong, choices))
}

/// A hint with the most similar choice, or with all choices.
pub(super) fn suggest(wrong: &str, choices: &[impl AsRef<str>]) -> String {
    let mut seen = BTreeSet::new();
    let choices: Vec<&str> =
        choices.iter().map(AsRef::as_ref).filter(|choice| seen.insert(*choice)).collect();
    if let Some(choice) = suggested(wrong, &choices) {
        return format!("did you mean `{choice}`?");
    }
    let all: Vec<String> = choices.iter().map(|choice| format!("`{choice}`")).collect();
    if all.is_empty() {
        "there is nothing to choose from".into()
    } else {
        format!("choose from {}", all.join(", "))
    }
}
