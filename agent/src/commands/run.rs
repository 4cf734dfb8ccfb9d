//! `run`: runs the agent.

use super::{Exit, complain, restart};
use crate::{cli::Run, run::RunError};

pub(super) async fn run(arguments: &Run) -> Exit {
    if arguments.restart {
        return restart::restart(&arguments.config.config).await;
    }
    match crate::run::run(&arguments.config.config).await {
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
