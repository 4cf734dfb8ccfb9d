//! The line that answers an agent check.
//!
//! Words are split by space, tab or comma, and `#` begins the reason. A reply
//! without words changes nothing: `#...` is the neutral answer.

use std::fmt::Write;

/// The longest reason that is sent: HAProxy keeps about this much for its status page.
const MAX_REASON: usize = 120;

/// The health word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Health {
    /// `up`
    Up,
    /// `down #reason`
    Down(String),
}

/// The admin word. Each overwrites whatever a person has set.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash)]
pub enum Admin {
    /// `drain`
    Drain,
    /// `ready`
    Ready,
}

/// One answer. Empty, it is the neutral one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reply {
    /// The admin word, if any.
    pub admin: Option<Admin>,
    /// The health word, if any.
    pub health: Option<Health>,
}

impl Reply {
    /// The line, newline included.
    pub fn line(&self) -> String {
        let mut line = String::with_capacity(16);
        match self.admin {
            Some(Admin::Drain) => line.push_str("drain"),
            Some(Admin::Ready) => line.push_str("ready"),
            None => {}
        }
        let gap = if line.is_empty() { "" } else { " " };
        match &self.health {
            Some(Health::Up) => {
                line.push_str(gap);
                line.push_str("up");
            }
            Some(Health::Down(reason)) => {
                let _ = write!(line, "{gap}down #{}", clean(reason));
            }
            None if line.is_empty() => line.push_str("#no opinion"),
            None => {}
        }
        line.push('\n');
        line
    }
}

/// One line of printable text, cut to what HAProxy shows.
fn clean(reason: &str) -> String {
    reason.chars().map(|c| if c.is_ascii_graphic() { c } else { ' ' }).take(MAX_REASON).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_steady_lines_carry_no_admin_word() {
        let up = Reply { health: Some(Health::Up), admin: None };
        assert_eq!(up.line(), "up\n");
        let down = Reply { health: Some(Health::Down("not the writer".into())), admin: None };
        assert_eq!(down.line(), "down #not the writer\n");
        assert_eq!(Reply::default().line(), "#no opinion\n");
        let undo = Reply { health: Some(Health::Up), admin: Some(Admin::Ready) };
        assert_eq!(undo.line(), "ready up\n");
    }

    proptest! {
        #[test]
        fn a_reason_never_adds_a_line_or_a_word_before_its_mark(reason in any::<String>()) {
            let line = Reply { health: Some(Health::Down(reason)), admin: None }.line();
            prop_assert_eq!(line.matches('\n').count(), 1);
            prop_assert!(line.starts_with("down #") && line.ends_with('\n') && line.len() < 200);
        }
    }
}
