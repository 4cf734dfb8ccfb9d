//! HAProxy's server state file, which the agent keeps current for a HAProxy that starts without an agent.
//! HAProxy may read it at any time.

use std::path::Path;

use super::{StateError, file};

/// Replaces the file atomically.
pub fn replace(path: &Path, text: &str) -> Result<(), StateError> {
    file::write_text(path, text.as_bytes())
}
