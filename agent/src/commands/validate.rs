//! `validate`: checks a configuration file and the files that it names, and prints all errors.

use agent_database::TlsTrust;

use super::{Exit, print};
use crate::{
    cli::ConfigFile,
    config::{self, Config},
    metrics::labels::Word,
};

pub(super) fn validate(arguments: &ConfigFile) -> Exit {
    match config::load(&arguments.config) {
        Ok(loaded) => {
            let file = arguments.config.display();
            for warning in &loaded.warnings {
                eprintln!("warning: {file}:{}:{}: {}", warning.line, warning.column, warning.message);
                if let Some(hint) = &warning.hint {
                    eprintln!("  hint: {hint}");
                }
            }
            let config = &loaded.config;
            let unusable = unusable_files(&file.to_string(), config);
            for error in &unusable {
                eprintln!("{error}");
            }
            if !unusable.is_empty() {
                return Exit::Usage;
            }
            print(format_args!(
                "{file}: ok: {} instances, {} servers, sessions: {}",
                config.instances().count(),
                config.servers().len(),
                Word::of(&config.sessions.mode)
            ));
            Exit::Ok
        }
        Err(problems) => {
            eprint!("{problems}");
            Exit::Usage
        }
    }
}

/// The CA files that cannot be used: the agent would start without their databases.
fn unusable_files(file: &str, config: &Config) -> Vec<String> {
    let unusable = config.databases.iter().filter_map(|database| {
        let error = TlsTrust::load(database.trust.clone()).err()?;
        Some(format!(
            "error: {file}:{}: database `{}`: {error}\n  hint: the other databases run without this one",
            database.lines.ca_file, database.name
        ))
    });
    unusable.collect()
}
