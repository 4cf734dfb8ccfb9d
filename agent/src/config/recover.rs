//! All errors of structure in one go: unknown keys, wrong types, unknown values.
//!
//! The parser stops at its first error. So each error is reported, what caused it is taken out of a copy of
//! the text or corrected there (lines stay as they are), and the copy is read again. The copy only serves to find further
//! errors: it is never put in force.

use serde_saphyr::Error;

use super::{
    Problem,
    file::File,
    problem::{of_yaml, suggested},
};

/// More errors than these are not worth reading at once.
const MOST: usize = 20;

/// The file, as far as it can be read, and the errors of structure in it.
pub(super) fn read(text: &str) -> (Option<File>, Vec<Problem>) {
    let mut copy: Vec<Vec<char>> = text.split('\n').map(|line| line.chars().collect()).collect();
    let (mut problems, mut gone): (Vec<Problem>, Vec<String>) = (Vec::new(), Vec::new());
    // Keys that were corrected, with their positions.
    let mut corrected: Vec<(String, Position)> = Vec::new();
    let mut shifts: Vec<Shift> = Vec::new();
    while problems.len() < MOST {
        let lines: Vec<String> = copy.iter().map(|line| line.iter().collect()).collect();
        let error = match serde_saphyr::from_str::<File>(&lines.join("\n")) {
            Ok(file) => return (Some(file), problems),
            Err(error) => error,
        };
        if let Error::DuplicateMappingKey { key: Some(key), .. } = error.without_snippet()
            && let Some(index) = corrected.iter().position(|(other, _)| other == key)
        {
            // The right key is there as well.
            if blank(&mut copy, corrected.swap_remove(index).1) {
                continue;
            }
        }
        let mut problem = of_yaml(&error);
        let at = Position::of(&problem);
        shifts.iter().rev().for_each(|shift| shift.undo(&mut problem));
        // What was taken out is missing now: that is not another error.
        let consequence = match error.without_snippet() {
            Error::Eof { .. } => !problems.is_empty(),
            Error::SerdeMissingField { field, .. } => gone.iter().any(|key| key == field),
            _ => problems.iter().any(|known| known.line == problem.line && known.column == problem.column),
        };
        if consequence {
            break;
        }
        problems.push(problem);
        let mended = at.is_some_and(|at| match error.without_snippet() {
            Error::SerdeUnknownField { field, expected, .. } => {
                // Corrected rather than taken out: a required key would be missing.
                if let Some(choice) = suggested(field, expected)
                    && replace(&mut copy, &mut shifts, at, field, choice)
                {
                    corrected.push((choice.to_owned(), at));
                    true
                } else {
                    gone.push((*field).clone());
                    blank(&mut copy, at)
                }
            }
            Error::SerdeUnknownVariant { variant, expected, .. } => {
                let choice = suggested(variant, expected).or_else(|| expected.first().copied());
                choice.is_some_and(|choice| replace(&mut copy, &mut shifts, at, variant, choice))
            }
            Error::SerdeInvalidType { .. }
            | Error::InvalidScalar { .. }
            | Error::Unexpected { .. }
            | Error::DuplicateMappingKey { .. } => {
                let start = start_of_entry(&copy, at);
                gone.extend(key_at(&copy, start));
                blank(&mut copy, start)
            }
            _ => false,
        });
        if !mended {
            break;
        }
    }
    (None, problems)
}

/// A correction moves what follows it on its line.
#[derive(Copy, Clone, Debug)]
struct Shift {
    at: Position,
    /// How much longer the line is than it was.
    by: i64,
}

impl Shift {
    /// Gives a problem the position that it has in the text before the correction.
    fn undo(&self, problem: &mut Problem) {
        let follows = Position::of(problem)
            .is_some_and(|found| found.line == self.at.line && found.column > self.at.column);
        if follows {
            problem.column = problem.column.saturating_add_signed(-self.by);
            problem.shown = problem.shown.map(|shown| shown.saturating_add_signed(-self.by));
        }
    }
}

/// Line and column, from 0.
#[derive(Copy, Clone, Debug)]
struct Position {
    line: usize,
    column: usize,
}

impl Position {
    fn of(problem: &Problem) -> Option<Self> {
        let index = |number: u64| usize::try_from(number).ok()?.checked_sub(1);
        Some(Self { line: index(problem.line)?, column: index(problem.column)? })
    }
}

/// The part of a line before a position, as the flow collections that are open there: the column after the
/// last `{`, `[` or `,` of each.
fn open_collections(line: &[char], column: usize) -> Vec<usize> {
    let (mut open, mut quote) = (Vec::new(), None);
    for (index, c) in line.iter().enumerate().take(column) {
        match (quote, c) {
            (Some(own), c) if own == *c => quote = None,
            (Some(_), _) => {}
            (None, '"' | '\'') => quote = Some(*c),
            (None, '{' | '[') => open.push(index + 1),
            (None, '}' | ']') => drop(open.pop()),
            (None, ',') => {
                if let Some(last) = open.last_mut() {
                    *last = index + 1;
                }
            }
            (None, '#') if index == 0 || line.get(index - 1) == Some(&' ') => break,
            (None, _) => {}
        }
    }
    open
}

/// Where the key begins whose value is at a position.
fn start_of_entry(copy: &[Vec<char>], at: Position) -> Position {
    let Some(line) = copy.get(at.line) else { return at };
    let start = open_collections(line, at.column).last().copied().unwrap_or(0);
    let is_gap = |column: &usize| {
        let c = line.get(*column);
        c == Some(&' ') || c == Some(&'-') && line.get(column + 1) == Some(&' ')
    };
    let column = (start..at.column).find(|column| !is_gap(column)).unwrap_or(at.column);
    Position { column, ..at }
}

/// The key that begins at a position.
fn key_at(copy: &[Vec<char>], at: Position) -> Option<String> {
    let rest = copy.get(at.line)?.get(at.column..)?;
    let end = rest.iter().position(|c| *c == ':')?;
    Some(rest.get(..end)?.iter().collect())
}

/// Replaces the entry that begins at a position by blanks. Whether it could.
fn blank(copy: &mut [Vec<char>], at: Position) -> bool {
    let Some(line) = copy.get_mut(at.line) else { return false };
    if !open_collections(line, at.column).is_empty() {
        return blank_in_flow(line, at.column);
    }
    line.iter_mut().skip(at.column).for_each(|c| *c = ' ');
    for line in copy.iter_mut().skip(at.line + 1) {
        let indent = line.iter().take_while(|c| **c == ' ').count();
        if indent <= at.column && indent < line.len() && line.get(indent) != Some(&'\r') {
            break;
        }
        line.fill(' ');
    }
    true
}

/// The same inside `{...}` or `[...]`. Whether the entry ends on the line.
fn blank_in_flow(line: &mut [char], start: usize) -> bool {
    let (mut depth, mut quote) = (0_usize, None);
    let mut end = None;
    for (index, c) in line.iter().enumerate().skip(start) {
        match (quote, c) {
            (Some(own), c) if own == *c => quote = None,
            (Some(_), _) => {}
            (None, '"' | '\'') => quote = Some(*c),
            (None, '{' | '[') => depth += 1,
            (None, '}' | ']') if depth == 0 => end = Some(index),
            (None, '}' | ']') => depth -= 1,
            (None, ',') if depth == 0 => end = Some(index + 1),
            (None, _) => {}
        }
        if end.is_some() {
            break;
        }
    }
    let Some(end) = end else { return false };
    line.iter_mut().take(end).skip(start).for_each(|c| *c = ' ');
    true
}

/// Replaces a value by one of the choices. Whether it was there.
fn replace(copy: &mut [Vec<char>], shifts: &mut Vec<Shift>, at: Position, value: &str, choice: &str) -> bool {
    let Some(line) = copy.get_mut(at.line) else { return false };
    let quoted = usize::from(matches!(line.get(at.column), Some('"' | '\'')));
    let range = at.column + quoted..at.column + quoted + value.chars().count();
    let found = line.get(range.clone()).is_some_and(|found| found.iter().copied().eq(value.chars()));
    if found {
        let length = |text: &str| i64::try_from(text.chars().count()).unwrap_or(i64::MAX);
        shifts.push(Shift { at, by: length(choice) - length(value) });
        line.splice(range, choice.chars());
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The errors, each as position and message.
    fn found(text: &str) -> (bool, Vec<String>) {
        let (file, problems) = read(text);
        let brief = |problem: &Problem| format!("{}:{} {}", problem.line, problem.column, problem.message);
        (file.is_some(), problems.iter().map(brief).collect())
    }

    #[test]
    fn all_errors_of_structure_are_found_at_once() {
        let text = "\
databases:
  - name: orders
    engine: aurora-postgresql
    usr: lb_agent
    user: lb_agent
    timeouts:
      connect: 5s

      read: 5s
    instances:
      - {name: a, endpint: x, endpoint: 'a.abc.eu-west-1.rds.amazonaws.com:5432', conect: y}
proxies:
  - haproxy: {socket: /run/haproxy/admin.sock}
    backends:
      w: {database: orders, role: primary, servers: {pg1: a}}
sessions: {mode: retire, login_budget: many}
";
        assert_eq!(
            found(text),
            (
                true,
                [
                    "3:13 `aurora-postgresql` is not a valid value",
                    "4:5 unknown key `usr`",
                    "6:5 unknown key `timeouts`",
                    "11:19 unknown key `endpint`",
                    "11:83 unknown key `conect`",
                    "15:35 `primary` is not a valid value",
                    "16:40 a whole number, not negative, is expected here",
                ]
                .map(str::to_owned)
                .into()
            )
        );
    }

    #[test]
    fn a_misspelt_key_that_is_required_hides_no_other_error() {
        let text = "\
databases: []
proxies:
  - haproxy: {sockets: /run/haproxy/admin.sock}
    backends:
      w: {database: orders, role: primary, servers: {pg1: a}}
sessions: {mode: retire, login_budget: many}
";
        let expected = [
            "3:15 unknown key `sockets`",
            "5:35 `primary` is not a valid value",
            "6:40 a whole number, not negative, is expected here",
        ];
        assert_eq!(found(text), (true, expected.map(str::to_owned).into()));
    }

    #[test]
    fn what_was_taken_out_is_not_reported_as_missing() {
        let text = "databases:\n  - name: orders\n    engine: mysql\n    usr: x\n    instances: []\n";
        assert_eq!(found(text), (true, vec!["4:5 unknown key `usr`".to_owned()]));
        let text = "databases: 7\n";
        assert_eq!(found(text).1.len(), 1, "{:?}", found(text));
    }
}
