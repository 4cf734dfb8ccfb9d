//! Errors on one line, for logs and `/state`.

use std::error::Error;

/// An error and its causes on one line, each once.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut text = one_line(&error.to_string());
    let mut source = error.source();
    while let Some(cause) = source {
        let message = one_line(&cause.to_string());
        // Many errors contain the text of their cause.
        if !message.is_empty() && !text.contains(&message) {
            text.push_str(": ");
            text.push_str(&message);
        }
        source = cause.source();
    }
    text
}

fn one_line(text: &str) -> String {
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    lines.join("; ").replace(":; ", ": ")
}

#[cfg(test)]
mod tests {
    use thiserror::Error;

    use super::chain;

    #[derive(Debug, Error)]
    #[error("outer: inner")]
    struct Outer(#[source] Inner);

    #[derive(Debug, Error)]
    #[error("inner")]
    struct Inner(#[source] std::io::Error);

    #[test]
    fn a_chain_is_one_line_with_each_cause_once() {
        let error = Outer(Inner(std::io::Error::other("a:\n  b\n  c")));
        assert_eq!(chain(&error), "outer: inner: a: b; c");
    }
}
