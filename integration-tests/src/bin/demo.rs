//! `make demo`: the main job on real servers, live, in about a minute.
//!
//! Variables say what differs: ENGINE (postgresql, mariadb), PROXY (haproxy, envoy), HOLD=1 (leaves
//! everything running), DURATION (seconds), TO (the folder of `summary.json`; target/demo).
//! Exit: 0 well, 1 something that must not be (or a failure), 64 usage, 130 stopped before its end.

use std::{
    fs, io,
    path::{Path, PathBuf},
    pin::pin,
    process::ExitCode,
    time::Duration,
};

use integration_tests::{
    demo::{Demo, Error, LENGTH, Summary},
    envoy::Envoy,
    haproxy::Haproxy,
    scene::Proxy,
    standin::Engine,
};
use tokio::signal::unix::{SignalKind, signal};

/// What was asked for.
struct Asked {
    engine: Engine,
    behind_envoy: bool,
    hold: bool,
    length: Duration,
    to: PathBuf,
}

#[tokio::main]
async fn main() -> ExitCode {
    let asked = match Asked::by_variables() {
        Ok(asked) => asked,
        Err(wrong) => {
            eprintln!("error: {wrong}");
            return ExitCode::from(64);
        }
    };
    let ended = if asked.behind_envoy { demo::<Envoy>(&asked).await } else { demo::<Haproxy>(&asked).await };
    ended.unwrap_or_else(|error| {
        eprintln!("error: {error}");
        ExitCode::FAILURE
    })
}

impl Asked {
    fn by_variables() -> Result<Self, String> {
        let said = |name: &str| std::env::var(name).unwrap_or_default();
        let engine = match said("ENGINE").as_str() {
            "" | "postgresql" => Engine::Postgresql,
            "mariadb" => Engine::Mariadb,
            other => return Err(format!("ENGINE={other}: this version knows postgresql and mariadb")),
        };
        let behind_envoy = match said("PROXY").as_str() {
            "" | "haproxy" => false,
            "envoy" => true,
            other => return Err(format!("PROXY={other}: this version knows haproxy and envoy")),
        };
        let length = match said("DURATION").as_str() {
            "" => LENGTH,
            seconds => Duration::from_secs(
                seconds.parse().map_err(|_| format!("DURATION={seconds}: it is a number of seconds"))?,
            ),
        };
        let to = match said("TO").as_str() {
            "" => Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/demo"),
            folder => PathBuf::from(folder),
        };
        let hold = !matches!(said("HOLD").as_str(), "" | "0");
        Ok(Self { engine, behind_envoy, hold, length, to })
    }
}

async fn demo<P: Proxy>(asked: &Asked) -> Result<ExitCode, Error> {
    let mut stopped = pin!(stopped()?);
    // Dropping what was begun stops and removes it, wherever it was.
    let (demo, summary) = tokio::select! {
        ran = run::<P>(asked) => ran?,
        () = &mut stopped => return Ok(ExitCode::from(130)),
    };
    if asked.hold {
        println!("\n{}", demo.instructions()?);
        stopped.await;
    }
    demo.end().await?;
    let wrong = summary.wrong();
    if wrong.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    eprintln!("error: {}", wrong.join("; "));
    Ok(ExitCode::FAILURE)
}

async fn run<P: Proxy>(asked: &Asked) -> Result<(Demo<P>, Summary), Error> {
    let mut demo = Demo::begin(asked.engine).await?;
    let summary = demo.run(asked.length).await?;
    fs::create_dir_all(&asked.to)?;
    let file = asked.to.join("summary.json");
    fs::write(&file, serde_json::to_string_pretty(&summary)?)?;
    println!("\nalso in {}", file.canonicalize()?.display());
    Ok((demo, summary))
}

/// Ends with the first Ctrl-C, SIGTERM, or end of the terminal, from now on.
fn stopped() -> io::Result<impl Future<Output = ()>> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hang_up = signal(SignalKind::hangup())?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hang_up.recv() => {}
        }
    })
}
