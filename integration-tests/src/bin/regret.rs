//! `regret`: plays fault scripts with and without the agent, prints a table, writes `summary.json`.

use std::{
    collections::VecDeque,
    fs,
    path::PathBuf,
    process::ExitCode,
    sync::{Arc, Mutex, PoisonError},
};

use clap::Parser;
use futures_util::future::try_join_all;
use integration_tests::regret::{self, Cell, Row, Script, Summary};

/// What clients suffer with the agent acting, less what they suffer without it
///
/// Plays each fault script on real servers: with the agent, with the proxy left as the agent left it (twice),
/// and without an agent on the cluster's name by DNS; all at once, with the same load. Exits 1 where the
/// agent is worse by more than chance. See docs/REGRET.md.
#[derive(Parser)]
#[command(version)]
struct CommandLine {
    /// Scripts to play; a name that ends in * stands for all that begin like it
    names: Vec<String>,
    /// Lists the scripts
    #[arg(long)]
    list: bool,
    /// Only the part that is played in CI, at most 8 minutes
    #[arg(long)]
    ci: bool,
    /// Plays of each script in which clients suffer without the agent; 5, or 1 with --ci
    #[arg(long, value_name = "N")]
    pairs: Option<u32>,
    /// Scripts that are played at the same time
    #[arg(long, value_name = "N", default_value_t = 2)]
    lanes: usize,
    /// Where files go
    #[arg(long, value_name = "FOLDER", default_value = "target/regret")]
    to: PathBuf,
}

#[tokio::main]
async fn main() -> ExitCode {
    let line = CommandLine::parse();
    let all = regret::all();
    if line.list {
        for Script { name, what, cells, ci, .. } in &all {
            let cells: Vec<_> =
                cells.iter().map(|cell| format!("{}/{}", cell.proxy.word(), cell.engine_word())).collect();
            println!("{name:<32} {what} ({}{})", cells.join(", "), if *ci { "; ci" } else { "" });
        }
        return ExitCode::SUCCESS;
    }
    if let Some(unknown) = line.names.iter().find(|name| !all.iter().any(|script| means(name, script.name))) {
        eprintln!("there is no script {unknown}; --list lists them");
        return ExitCode::from(64);
    }
    match run(&line, all).await {
        Ok(code) => code,
        Err(error) => {
            eprintln!("write to {}: {error}", line.to.display());
            ExitCode::from(2)
        }
    }
}

async fn run(line: &CommandLine, all: Vec<Script>) -> std::io::Result<ExitCode> {
    let asked = |script: &Script| {
        (line.names.is_empty() || line.names.iter().any(|name| means(name, script.name)))
            && (!line.ci || script.ci)
    };
    let details = line.to.join("plays");
    fs::create_dir_all(&details)?;
    let queue: VecDeque<(Script, Cell)> = all
        .into_iter()
        .filter(asked)
        .flat_map(|script| script.cells.iter().map(move |cell| (script, *cell)))
        .collect();
    let queue = Arc::new(Mutex::new(queue));
    let summary = Arc::new(Mutex::new(Summary::begin(&line.to)?));
    let pairs = line.pairs.unwrap_or(if line.ci { 1 } else { 5 });
    println!("{}", regret::header());
    let lanes = (0..line.lanes.max(1)).map(|_| {
        let (queue, summary, details) = (queue.clone(), summary.clone(), details.clone());
        async move {
            loop {
                let next = queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
                let Some((script, cell)) = next else { return Ok::<_, std::io::Error>(()) };
                let row = row(&script, cell, pairs, &details).await;
                println!("{row}");
                summary.lock().unwrap_or_else(PoisonError::into_inner).add(row)?;
            }
        }
    });
    try_join_all(lanes).await?;
    let summary = summary.lock().unwrap_or_else(PoisonError::into_inner);
    let rows = summary.rows();
    Ok(if rows.iter().any(|row| row.error.is_some()) {
        ExitCode::from(2)
    } else if rows.iter().any(|row| !row.worse.is_empty()) {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

/// Plays a script until chance and the agent's effect can be told apart.
async fn row(script: &Script, cell: Cell, pairs: u32, details: &std::path::Path) -> Row {
    /// What looks worse is played again before it is said to be.
    const SUSPECT: u32 = 3;
    /// A server or a proxy that does not start in time on a busy machine is no finding.
    const TRIES: u32 = 3;
    let mut failed = 0;
    let mut row = Row::new(script, cell);
    loop {
        match regret::play(script, cell, u64::from(row.plays), details).await {
            Ok(play) => row.add(&play),
            Err(error) => {
                failed += 1;
                eprintln!("{} could not be played: {error}", script.name);
                if failed == TRIES {
                    row.error = Some(error.to_string());
                    return row;
                }
                continue;
            }
        }
        let enough = if row.worse.is_empty() { pairs } else { pairs.max(SUSPECT) };
        if row.plays >= enough || (row.worse.is_empty() && !row.mute_suffers()) {
            return row;
        }
    }
}

/// Whether what was asked for is this script.
fn means(asked: &str, name: &str) -> bool {
    match asked.strip_suffix('*') {
        Some(beginning) => name.starts_with(beginning),
        None => asked == name,
    }
}
