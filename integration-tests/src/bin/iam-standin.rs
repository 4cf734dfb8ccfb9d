//! `iam-standin`: real PostgreSQL or MariaDB servers that take only genuine IAM tokens, without AWS.
//!
//! `run` (or nothing) starts them and runs until Ctrl-C or SIGTERM. Each other subcommand
//! speaks to a running stand-in through its control socket.

use std::{io, path::PathBuf, process::ExitCode, time::Duration};

use clap::{Args, Parser, Subcommand};
use integration_tests::{
    process,
    standin::{
        Engine, Options, StandIn, Summary,
        console::{self, Request},
    },
};
use jiff::SignedDuration;
use tokio::signal::unix::{SignalKind, signal};

/// Real PostgreSQL or MariaDB servers that take only genuine IAM tokens, without AWS
///
/// Starts a writer and replicas, and a credentials endpoint, on loopback addresses
/// and in a temporary folder, as an unprivileged user; prints what is needed to use them;
/// runs until Ctrl-C or SIGTERM, and leaves nothing behind. With a command, speaks to one
/// that runs.
#[derive(Parser)]
#[command(version)]
struct CommandLine {
    /// The control socket of the stand-in; `run` makes one in its folder if not said
    #[arg(long, global = true, env = "IAM_STANDIN_CONTROL", value_name = "PATH")]
    control: Option<PathBuf>,
    #[command(subcommand)]
    task: Option<Task>,
}

#[derive(Subcommand)]
enum Task {
    /// Starts a stand-in, and runs until Ctrl-C or SIGTERM; what is done if nothing is said
    Run(RunOptions),
    #[command(flatten)]
    Request(Request),
}

#[derive(Args)]
struct RunOptions {
    /// What the servers are
    #[arg(long, value_enum, default_value_t)]
    engine: Engine,
    /// How many replicas beside the writer
    #[arg(long, default_value_t = 2)]
    replicas: usize,
    /// The first part of the servers' names
    #[arg(long, default_value = "orders")]
    prefix: String,
    /// The region that tokens have to be signed for
    #[arg(long, default_value = "eu-west-1")]
    region: String,
    /// The port of all servers; a free one if not said
    #[arg(long)]
    port: Option<u16>,
    /// Connections that a server takes
    #[arg(long, default_value_t = 300)]
    max_connections: u32,
    /// Failed connections from one address after which MariaDB blocks it
    #[arg(long, default_value_t = 100)]
    max_connect_errors: u32,
    /// Run MariaDB without performance_schema, as RDS often does
    #[arg(long)]
    without_performance_schema: bool,
    /// How long credentials live, such as 60s or 6h
    #[arg(long, default_value = "6h", value_name = "DURATION", value_parser = duration)]
    credential_life: Duration,
    /// Print the summary as one line of JSON
    #[arg(long)]
    json: bool,
}

fn duration(text: &str) -> Result<Duration, String> {
    let parsed: SignedDuration = text.parse().map_err(|error: jiff::Error| error.to_string())?;
    parsed.try_into().map_err(|_| "it is negative".to_owned())
}

#[tokio::main]
async fn main() -> ExitCode {
    let outcome = match CommandLine::parse() {
        CommandLine { control, task: Some(Task::Request(request)) } => speak(control, &request).await,
        CommandLine { control, task: Some(Task::Run(options)) } => run(control, options).await,
        CommandLine { control, task: None } => match CommandLine::parse_from(["iam-standin", "run"]).task {
            Some(Task::Run(defaults)) => run(control, defaults).await,
            _ => unreachable!("what was just said is `run`"),
        },
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("iam-standin: {error}");
            ExitCode::FAILURE
        }
    }
}

type Outcome = Result<(), Box<dyn std::error::Error>>;

async fn speak(control: Option<PathBuf>, request: &Request) -> Outcome {
    let control = control.ok_or("say the stand-in's control socket with --control or IAM_STANDIN_CONTROL")?;
    let answer = console::ask(&control, request).await?;
    if !answer.is_empty() {
        println!("{answer}");
    }
    Ok(())
}

async fn run(control: Option<PathBuf>, start: RunOptions) -> Outcome {
    let listens = |kind| signal(kind).map_err(process::Error::io("listen for signals"));
    let (mut interrupt, mut terminate) =
        (listens(SignalKind::interrupt())?, listens(SignalKind::terminate())?);
    let mut told_to_stop = std::pin::pin!(async {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    });

    let options = Options {
        engine: start.engine,
        replicas: start.replicas,
        prefix: start.prefix,
        region: start.region,
        port: start.port,
        max_connections: start.max_connections,
        max_connect_errors: start.max_connect_errors,
        performance_schema: !start.without_performance_schema,
        credential_life: start.credential_life,
        ..Options::default()
    };
    let standin = tokio::select! {
        standin = StandIn::start(options) => standin?,
        () = &mut told_to_stop => return Ok(()),
    };
    let control = control.unwrap_or_else(|| standin.folder().join("control.sock"));
    let listener = console::listen(&control)?;
    print(&standin.summary()?, &control, start.json)?;
    tokio::select! {
        () = console::serve(&standin, &listener) => {}
        () = &mut told_to_stop => {}
    }
    drop(listener);
    // Outside of the stand-in's folder it would stay; inside, the folder takes it along.
    let _ = std::fs::remove_file(&control);
    Ok(standin.shutdown().await?)
}

fn print(summary: &Summary, control: &std::path::Path, json: bool) -> Outcome {
    let own_path = std::env::current_exe().map_err(process::Error::io("find out this program's path"))?;
    let command = format!("{} --control {}", own_path.display(), control.display());
    let writer = summary.servers.iter().find(|server| server.name == summary.writer);
    let writer = writer.ok_or_else(|| io::Error::other("there is no writer"))?;
    let client =
        summary.command_line(&writer.endpoint, writer.connect, "app", &format!("{command} token app"));
    if json {
        let mut summary = serde_json::to_value(summary)?;
        if let Some(summary) = summary.as_object_mut() {
            summary.insert("control".to_owned(), control.display().to_string().into());
            summary.insert("client".to_owned(), client.into());
        }
        println!("{summary}");
    } else {
        println!("IAM stand-in, a writer and {} replicas:", summary.servers.len() - 1);
        println!("{summary}\nLog in:\n  {client}\n");
        println!("Play, from another terminal (--help shows all):");
        println!("  {command} failover b");
        println!("\nCtrl-C stops it and removes everything.");
    }
    Ok(())
}
