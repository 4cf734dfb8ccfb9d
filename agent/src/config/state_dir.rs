//! The state directory that a configuration file names, valid or not.
//!
//! Recorded drains have to be found and taken back when the file is wrong in any other place.

use std::path::{Path, PathBuf};

use serde::Deserialize;

pub(super) const DEFAULT: &str = "/var/lib/rds-lb-agent";

/// The state directory of a file; the default one if the file does not name one or cannot be read.
pub fn state_dir(file: &Path) -> PathBuf {
    from_text(&std::fs::read_to_string(file).unwrap_or_default())
}

fn from_text(text: &str) -> PathBuf {
    #[derive(Deserialize)]
    struct Named {
        state_dir: Option<PathBuf>,
    }
    let named = |yaml: &str| serde_saphyr::from_str::<Named>(yaml).ok()?.state_dir;
    // The file may not be YAML as a whole, while this line is.
    let line = || text.lines().filter(|line| line.starts_with("state_dir:")).find_map(named);
    named(text).or_else(line).filter(|path| path.is_absolute()).unwrap_or_else(|| DEFAULT.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_state_directory_is_found_in_a_file_that_is_wrong_in_another_place() {
        for (text, expected) in [
            ("state_dir: /srv/agent\n", "/srv/agent"),
            ("state_dir: \"/srv/agent\" # of the second agent\nunknown: 1\n", "/srv/agent"),
            ("{state_dir: /srv/agent, databases: 7}", "/srv/agent"),
            ("databases:\n\t- name: [\nstate_dir: '/srv/agent'\n", "/srv/agent"),
            ("state_dir: /srv/agent\ndatabases: [\n", "/srv/agent"),
            ("databases:\n  state_dir: /srv/other\n", DEFAULT),
            ("state_dir: relative\n", DEFAULT),
            ("state_dir: [1, 2]\n", DEFAULT),
            ("", DEFAULT),
        ] {
            assert_eq!(from_text(text), Path::new(expected), "{text:?}");
        }
    }
}
