//! The line that answers an agent check.
//!
//! Words are separated by space, tab or comma, and `#` begins the reason. A reply without
//! words changes nothing: `#...` is the neutral answer.

use std::fmt::Write;

/// The maximum length of a reason, in characters: about what HAProxy shows on its status page.
const MAX_REASON: usize = 120;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Health {
    Up,
    /// With the reason.
    Down(String),
}

/// The admin word. Both overwrite what an operator has set.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash)]
pub enum Admin {
    Drain,
    Ready,
}

/// One answer; the default is the neutral one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reply {
    pub admin: Option<Admin>,
    pub health: Option<Health>,
}

impl Reply {
    /// The line, with its newline.
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

/// Printable ASCII in one line, at most [`MAX_REASON`] characters.
fn clean(reason: &str) -> String {
    reason.chars().map(|c| if c.is_ascii_graphic() { c } else { ' ' }).take(MAX_REASON).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn steady_lines_have_no_admin_word() {
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
        fn a_reason_adds_no_line_and_no_word(reason in any::<String>()) {
            let line = Reply { health: Some(Health::Down(reason)), admin: None }.line();
            prop_assert_eq!(line.matches('\n').count(), 1);
            prop_assert!(line.starts_with("down #") && line.ends_with('\n') && line.len() < 200);
        }
    }
}
