//! `validate`: checks a configuration file and prints all its errors.

use super::{Exit, print};
use crate::{cli::ConfigFile, config, metrics::labels::Word};

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
