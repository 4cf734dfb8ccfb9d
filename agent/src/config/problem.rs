//! What is wrong with a configuration, where, and what to do about it.

use std::fmt;

use serde_saphyr::{Error, Location};

/// One thing that is wrong, or odd.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Line, from 1; 0 where it is not about one place.
    pub line: u64,
    /// Column, from 1.
    pub column: u64,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
}

impl Problem {
    /// A problem at a place.
    pub(super) fn at(location: Location, message: impl Into<String>) -> Self {
        Self { line: location.line(), column: location.column(), message: message.into(), hint: None }
    }

    /// The same with advice.
    #[must_use]
    pub(super) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

/// Everything that is wrong with a file. Shown with the lines it is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problems {
    /// The file.
    pub file: String,
    /// The problems, in the order of the file.
    pub problems: Vec<Problem>,
    text: String,
}

impl std::error::Error for Problems {}

impl Problems {
    pub(super) fn new(file: &str, text: &str, mut problems: Vec<Problem>) -> Self {
        problems.sort_by_key(|problem| (problem.line, problem.column));
        Self { file: file.to_owned(), text: text.to_owned(), problems }
    }

    pub(super) fn unreadable(file: &str, error: &std::io::Error) -> Self {
        let problem = Problem {
            line: 0,
            column: 0,
            message: format!("cannot read it: {error}"),
            hint: Some("name the file with --config; `rds-lb-agent schema` documents every key".into()),
        };
        Self::new(file, "", vec![problem])
    }

    /// One line a problem, for a log.
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
            show(f, "error", &self.file, &self.text, problem)?;
        }
        Ok(())
    }
}

/// Shows one problem with its line.
fn show(f: &mut fmt::Formatter<'_>, kind: &str, file: &str, text: &str, problem: &Problem) -> fmt::Result {
    let Problem { line, column, message, hint } = problem;
    if *line == 0 {
        writeln!(f, "{kind}: {file}: {message}")?;
    } else {
        writeln!(f, "{kind}: {file}:{line}:{column}: {message}")?;
        let at = usize::try_from(*line).unwrap_or(usize::MAX).saturating_sub(1);
        if let Some(source) = text.lines().nth(at) {
            let indent = usize::try_from(*column).unwrap_or(1).saturating_sub(1).min(source.chars().count());
            writeln!(f, "  {line:>4} | {source}\n       | {:indent$}^", "")?;
        }
    }
    match hint {
        Some(hint) => writeln!(f, "  hint: {hint}"),
        None => Ok(()),
    }
}

/// What the YAML parser found wrong.
pub(super) fn of_yaml(error: &Error) -> Problem {
    let error = error.without_snippet();
    let location = error.location().unwrap_or(Location::UNKNOWN);
    match error {
        Error::SerdeUnknownField { field, expected, .. } => {
            Problem::at(location, format!("unknown key `{field}`")).hint(suggest(field, expected))
        }
        Error::SerdeUnknownVariant { variant, expected, .. } => {
            Problem::at(location, format!("`{variant}` is not one of the choices"))
                .hint(suggest(variant, expected))
        }
        Error::SerdeMissingField { field, .. } => {
            Problem::at(location, format!("the key `{field}` is missing here"))
                .hint("`rds-lb-agent schema` documents every key")
        }
        other => {
            let text = other.to_string();
            // The parser's own text repeats the place, which stands before it here.
            let message = text.lines().next().unwrap_or("not YAML").trim_start_matches("error: ");
            let message = message.split_once(" at line ").map_or(message, |(message, _)| message);
            Problem::at(location, message.to_owned()).hint("check the indentation and the quotes around here")
        }
    }
}

/// The nearest of the choices, or all of them.
pub(super) fn suggest(wrong: &str, choices: &[impl AsRef<str>]) -> String {
    let nearest = choices
        .iter()
        .map(AsRef::as_ref)
        .map(|choice| (strsim::jaro_winkler(wrong, choice), choice))
        .filter(|(likeness, _)| *likeness > 0.8)
        .max_by(|one, other| one.0.total_cmp(&other.0));
    if let Some((_, choice)) = nearest {
        return format!("did you mean `{choice}`?");
    }
    let all: Vec<String> = choices.iter().map(|choice| format!("`{}`", choice.as_ref())).collect();
    if all.is_empty() {
        "there is nothing to choose from here".into()
    } else {
        format!("choose from {}", all.join(", "))
    }
}
