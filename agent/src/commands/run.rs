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
        Err(error @ RunError::Internal(_)) => {
            complain(error);
            Exit::Problem
        }
        // Not 64, after which the unit does not restart: the address or the state directory may still be in use by
        // the agent before.
        Err(error) => {
            complain(error);
            Exit::CouldNotCheck
        }
    }
}
