//! `run`: runs the agent.

use super::{Exit, complain};
use crate::{cli::ConfigFile, run::RunError};

pub(super) async fn run(arguments: &ConfigFile) -> Exit {
    match crate::run::run(&arguments.config).await {
        Ok(()) => Exit::Ok,
        Err(RunError::Config(problems)) => {
            // Each problem is printed with "error:" and its line.
            eprint!("{problems}");
            Exit::Usage
        }
        // Exit code 1, not 64: a supervisor may be told not to restart after a wrong configuration.
        Err(error @ RunError::Internal(_)) => {
            complain(error);
            Exit::Problem
        }
        Err(error) => {
            complain(error);
            Exit::Usage
        }
    }
}
