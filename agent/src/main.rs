//! `rds-lb-agent`: parses the command line and executes the command.

use std::process::ExitCode;

use clap::Parser;
use rds_lb_agent::{cli::Cli, commands};

fn main() -> ExitCode {
    // Not clap's exit code 2, which means "could not check" here.
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            let arguments: Vec<String> = std::env::args().skip(1).collect();
            if let Some(form) = rds_lb_agent::cli::right_form(&arguments).filter(|_| error.use_stderr()) {
                eprintln!("\nhint: write `rds-lb-agent {form}`");
            }
            return if error.use_stderr() { ExitCode::from(64) } else { ExitCode::SUCCESS };
        }
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    match runtime {
        Ok(runtime) => {
            let exit = runtime.block_on(commands::execute(cli));
            // A hanging name lookup or disk must not keep the process from exiting.
            runtime.shutdown_background();
            exit.into()
        }
        Err(error) => {
            eprintln!("error: cannot start the runtime: {error}");
            ExitCode::from(2)
        }
    }
}
