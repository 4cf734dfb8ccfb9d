//! `bench`: measures, prints a table, and writes a file for each measurement.

use std::{path::PathBuf, process::ExitCode};

use clap::Parser;
use integration_tests::{
    bench::{self, Report},
    packets::in_own_network,
};

/// Measures the agent: its parts, and what it breaks under load
///
/// Prints a table, and writes a JSON file for each measurement. Without names, everything is
/// measured, which takes more than an hour. Exits 1 where something missed what is promised of it: on a
/// machine that does nothing else, since a client that has to wait for its turn learns late of a close.
#[derive(Parser)]
#[command(version)]
struct CommandLine {
    /// What to measure; a name that ends in * stands for all that begin like it
    names: Vec<String>,
    /// Lists the names
    #[arg(long)]
    list: bool,
    /// Shorter: a tenth of the load
    #[arg(long)]
    quick: bool,
    /// Where files go
    #[arg(long, value_name = "FOLDER", default_value = "target/bench")]
    to: PathBuf,
}

fn main() -> ExitCode {
    let line = CommandLine::parse();
    if !line.list && !in_own_network() {
        eprintln!("packets are not dropped: a network namespace and nftables need root");
    }
    match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime.block_on(run(line)),
        Err(error) => {
            eprintln!("start the runtime: {error}");
            ExitCode::from(2)
        }
    }
}

async fn run(line: CommandLine) -> ExitCode {
    let all = bench::all();
    if line.list {
        for (name, what, _) in &all {
            println!("{name:<26} {what}");
        }
        return ExitCode::SUCCESS;
    }
    if let Some(unknown) = line.names.iter().find(|name| !all.iter().any(|(known, ..)| means(name, known))) {
        eprintln!("there is no bench {unknown}; --list lists them");
        return ExitCode::from(64);
    }
    let mut report = match Report::begin(&line.to) {
        Ok(report) => report,
        Err(error) => {
            eprintln!("write to {}: {error}", line.to.display());
            return ExitCode::from(2);
        }
    };
    let mut code = ExitCode::SUCCESS;
    for (name, _, bench) in all {
        if !line.names.is_empty() && !line.names.iter().any(|asked| means(asked, name)) {
            continue;
        }
        if let Err(error) = bench.run(line.quick, &mut report).await {
            eprintln!("{name}: {error}");
            code = ExitCode::from(2);
        }
    }
    if !report.missed().is_empty() {
        eprintln!("what is promised was not kept: {}", report.missed().join(", "));
        code = ExitCode::FAILURE;
    }
    code
}

/// Whether what was asked for is this bench.
fn means(asked: &str, name: &str) -> bool {
    match asked.strip_suffix('*') {
        Some(beginning) => name.starts_with(beginning),
        None => asked == name,
    }
}
