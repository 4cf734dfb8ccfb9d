//! `rds-lb-agent`: reads the command line and does what it says.

use std::process::ExitCode;

use clap::Parser;
use rds_lb_agent::{cli::Cli, commands};

fn main() -> ExitCode {
    // Usage errors exit 64 like wrong configurations, so that 2 means "could not check".
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            return if error.use_stderr() { ExitCode::from(64) } else { ExitCode::SUCCESS };
        }
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    match runtime {
        Ok(runtime) => {
            let exit = runtime.block_on(commands::execute(cli));
            // A name lookup or a disk that hangs must not keep the process.
            runtime.shutdown_background();
            exit.into()
        }
        Err(error) => {
            eprintln!("error: the runtime does not start: {error}");
            ExitCode::from(2)
        }
    }
}
