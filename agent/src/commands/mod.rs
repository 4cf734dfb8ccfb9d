//! A file per command. Each prints its result and returns an exit code.

mod check;
mod control;
mod doctor;
mod drain;
mod external;
mod observe;
mod release;
mod render;
mod run;
mod server_state;
mod token;
mod undrain;
mod validate;
mod version;

use std::process::ExitCode;

use crate::cli::{Cli, Command};

/// The exit code of a command.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Exit {
    Ok,
    Problem,
    CouldNotCheck,
    Usage,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        match exit {
            Exit::Ok => ExitCode::SUCCESS,
            Exit::Problem => ExitCode::from(1),
            Exit::CouldNotCheck => ExitCode::from(2),
            Exit::Usage => ExitCode::from(64),
        }
    }
}

pub async fn execute(cli: Cli) -> Exit {
    match cli.command {
        Command::Run(arguments) => run::run(&arguments).await,
        Command::Check(arguments) if !arguments.haproxy.is_empty() => external::external(&arguments).await,
        Command::Check(arguments) => check::check(&arguments).await,
        Command::Observe(arguments) => observe::observe(&arguments).await,
        Command::Token(arguments) => token::token(&arguments).await,
        Command::Sessions(arguments) => control::sessions(&arguments).await,
        Command::Drain(arguments) => drain::drain(&arguments).await,
        Command::Undrain(arguments) => undrain::undrain(&arguments).await,
        Command::Release(arguments) => release::release(&arguments).await,
        Command::ServerState(arguments) => server_state::server_state(&arguments).await,
        Command::Writer(arguments) => control::writer(&arguments).await,
        Command::Pause(arguments) => control::pause(&arguments).await,
        Command::Resume(arguments) => control::resume(&arguments).await,
        Command::Doctor(arguments) => doctor::doctor(&arguments).await,
        Command::Render(arguments) => render::render(&arguments),
        Command::Validate(arguments) => validate::validate(&arguments),
        Command::Schema => version::schema(),
        Command::Version(arguments) => version::version(&arguments),
    }
}

/// Prints to standard output. A closed pipe (`| head`) is not an error.
fn print(text: impl std::fmt::Display) {
    use std::io::Write;
    let _ = writeln!(std::io::stdout(), "{text}");
}

/// Prints a value as indented JSON.
fn print_json(value: &impl serde::Serialize) {
    match serde_json::to_string_pretty(value) {
        Ok(text) => print(text),
        Err(error) => complain(error),
    }
}

fn complain(error: impl std::fmt::Display) {
    eprintln!("error: {error}");
}
