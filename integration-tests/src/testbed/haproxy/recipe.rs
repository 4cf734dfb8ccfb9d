//! A configuration of `deploy/haproxy` with a test's addresses; everything else runs as shipped.

use std::{fmt::Write, fs, path::Path};

use super::{HaproxyConfig, config::Place};
use crate::process::Error;

/// The folder of the recipes.
const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/haproxy");

/// The first words of commented lines that are configuration.
const KEYWORDS: [&str; 4] = ["server", "resolvers", "parse-resolv-conf", "hold"];

#[derive(Clone, Debug)]
pub struct Recipe {
    text: String,
}

impl Recipe {
    /// Reads a file of `deploy/haproxy`.
    pub fn shipped(name: &str) -> Result<Self, Error> {
        let text = fs::read_to_string(Path::new(FOLDER).join(name));
        Ok(Self { text: text.map_err(Error::io(format!("read {name} of {FOLDER}")))? })
    }

    /// Replaces text, which has to be there.
    ///
    /// # Panics
    /// It is not there: the recipe has changed.
    #[must_use]
    pub fn replace(mut self, from: &str, to: &str) -> Self {
        assert!(self.text.contains(from), "{from:?} is not in the recipe");
        self.text = self.text.replace(from, to);
        self
    }

    /// Without the lines that begin with these words.
    #[must_use]
    pub fn without(mut self, words: &str) -> Self {
        self.text = self.lines(|line| (!line.trim_start().starts_with(words)).then(|| line.to_owned()));
        self
    }

    /// With the configuration in its comments.
    #[must_use]
    pub fn uncommented(mut self) -> Self {
        self.text = self.lines(|line| {
            let code = line.trim_start().strip_prefix("# ").unwrap_or_default();
            let first = code.split_whitespace().next().unwrap_or_default();
            Some(if KEYWORDS.contains(&first) { line.replacen("# ", "", 1) } else { line.to_owned() })
        });
        self
    }

    fn lines(&self, line: impl Fn(&str) -> Option<String>) -> String {
        self.text.lines().filter_map(line).fold(String::new(), |mut text, line| {
            let _ = writeln!(text, "{line}");
            text
        })
    }

    /// The text, with its files in `folder` and the state file that is shipped.
    pub fn in_folder(&self, folder: &Path) -> String {
        let folder = folder.display().to_string();
        self.text
            .replace(" mode 660 group haproxy", " mode 600")
            .replace("/run/haproxy/", &format!("{folder}/"))
            .replace("/var/lib/haproxy/", &format!("{folder}/"))
            .replace("/etc/haproxy/all-down.state", &format!("{folder}/all-down.state"))
    }

    /// The names of its frontends and the lines with their ports.
    fn binds(&self) -> impl Iterator<Item = (&str, &str)> {
        let lines = self.text.lines().zip(self.text.lines().skip(1));
        lines.filter_map(|(line, next)| {
            Some((line.strip_prefix("frontend ")?, next.trim().strip_prefix("bind ")?))
        })
    }

    pub(super) fn text(&self, place: &Place<'_>) -> String {
        let mut text = self.in_folder(place.folder);
        for (frontend, bind) in self.binds() {
            let port = place.ports.get(frontend).copied().unwrap_or_default();
            text = text.replace(&format!("bind {bind}\n"), &format!("bind 127.0.0.1:{port}\n"));
        }
        text
    }
}

impl From<Recipe> for HaproxyConfig {
    fn from(recipe: Recipe) -> Self {
        let frontends = recipe.binds().map(|(name, _)| (name.to_owned(), String::new())).collect();
        let mut config = Self::new();
        (config.frontends, config.recipe) = (frontends, Some(recipe));
        config
    }
}
