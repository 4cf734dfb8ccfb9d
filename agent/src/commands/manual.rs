//! `completions` and `man`, from the definitions in [`cli`](crate::cli).

use clap::CommandFactory;

use super::{Exit, complain, print};
use crate::cli::{Cli, Completions, Man};

pub(super) fn completions(arguments: &Completions) -> Exit {
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut Cli::command(), "rds-lb-agent", &mut script);
    print(String::from_utf8_lossy(&script).trim_end());
    Exit::Ok
}

pub(super) fn man(arguments: &Man) -> Exit {
    let mut command = Cli::command();
    command.build();
    let wanted = match &arguments.command {
        None => command,
        Some(name) => {
            let Some(found) = command.find_subcommand(name) else {
                complain(format_args!("no command `{name}`"));
                return Exit::Usage;
            };
            let title = format!("rds-lb-agent-{name}");
            found.clone().display_name(title)
        }
    };
    let mut page = Vec::new();
    match clap_mangen::Man::new(wanted).render(&mut page) {
        Ok(()) => {
            print(String::from_utf8_lossy(&page).trim_end());
            Exit::Ok
        }
        Err(error) => {
            complain(error);
            Exit::CouldNotCheck
        }
    }
}
