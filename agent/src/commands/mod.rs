//! A file per command. Each prints its result and returns an exit code.

mod check;
mod control;
mod doctor;
mod drain;
mod explain;
mod external;
mod handoffs;
mod manual;
mod observe;
mod release;
mod render;
mod restart;
mod run;
mod screen;
mod server_state;
mod sessions;
mod status;
mod token;
mod undrain;
pub mod validate;
mod version;

use std::{
    process::ExitCode,
    sync::atomic::{AtomicBool, Ordering},
};

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
    // Tokens and credentials are in memory: no core dumps, and only root may attach a debugger.
    let _ = rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable);
    let none = rustix::process::Rlimit { current: Some(0), maximum: Some(0) };
    let _ = rustix::process::setrlimit(rustix::process::Resource::Core, none);
    let exit = command(cli).await;
    if LOST.load(Ordering::Relaxed) && exit == Exit::Ok { Exit::CouldNotCheck } else { exit }
}

async fn command(cli: Cli) -> Exit {
    match cli.command {
        Command::Run(arguments) => run::run(&arguments).await,
        Command::Check(arguments) if !arguments.haproxy.is_empty() => external::external(&arguments).await,
        Command::Check(arguments) => check::check(&arguments).await,
        Command::Observe(arguments) => observe::observe(&arguments).await,
        Command::Token(arguments) => token::token(&arguments).await,
        Command::Status(arguments) => status::status(&arguments).await,
        Command::Sessions(arguments) => sessions::sessions(&arguments).await,
        Command::Handoffs(arguments) => handoffs::handoffs(&arguments).await,
        Command::Explain(arguments) => explain::explain(&arguments).await,
        Command::Drain(arguments) => drain::drain(&arguments).await,
        Command::Undrain(arguments) => undrain::undrain(&arguments).await,
        Command::Release(arguments) => release::release(&arguments).await,
        Command::ServerState(arguments) => server_state::server_state(&arguments).await,
        Command::Writer(arguments) => control::writer(&arguments).await,
        Command::Pause(arguments) => control::pause(&arguments).await,
        Command::Resume(arguments) => control::resume(&arguments).await,
        Command::Doctor(arguments) => doctor::doctor(&arguments).await,
        Command::Render(arguments) => render::render(&arguments),
        Command::Validate(arguments) => validate::validate(&arguments).await,
        Command::Schema(arguments) => version::schema(&arguments),
        Command::Completions(arguments) => manual::completions(&arguments),
        Command::Man(arguments) => manual::man(&arguments),
        Command::Version(arguments) => version::version(&arguments),
    }
}

/// Whether output was lost.
static LOST: AtomicBool = AtomicBool::new(false);

/// Prints to standard output. A closed pipe (`| head`) is not an error.
fn print(text: impl std::fmt::Display) {
    use std::io::Write;
    let mut output = std::io::stdout();
    match writeln!(output, "{text}").and_then(|()| output.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            if !LOST.swap(true, Ordering::Relaxed) {
                complain(format_args!("cannot write the output: {error}"));
            }
        }
        Ok(()) | Err(_) => {}
    }
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
