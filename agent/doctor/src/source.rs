//! A text to be examined.

/// A file, or the answer of a socket: its name and its text.
pub struct Source {
    pub name: String,
    pub text: String,
}
