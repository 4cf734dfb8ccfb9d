//! `make demo`: the main job on real servers, live, in about a minute.

use std::{path::Path, process::ExitCode};

use integration_tests::{
    demo::{Error, run},
    envoy::Envoy,
    haproxy::Haproxy,
    standin::Engine,
};

#[tokio::main]
async fn main() -> ExitCode {
    let set = |name: &str| std::env::var(name).is_ok_and(|value| !value.is_empty() && value != "0");
    let asked = std::env::var("ENGINE").unwrap_or_default();
    let engine = match asked.as_str() {
        "" | "postgresql" => Engine::Postgresql,
        "mariadb" => Engine::Mariadb,
        _ => {
            eprintln!("error: ENGINE={asked}: this version knows postgresql and mariadb");
            return ExitCode::from(64);
        }
    };
    let asked = std::env::var("PROXY").unwrap_or_default();
    let behind_envoy = match asked.as_str() {
        "" | "haproxy" => false,
        "envoy" => true,
        _ => {
            eprintln!("error: PROXY={asked}: this version knows haproxy and envoy");
            return ExitCode::from(64);
        }
    };
    let hold = set("HOLD");
    let ended = tokio::select! {
        ended = demo(engine, behind_envoy, hold) => ended,
        // Dropping the demo stops and removes all that it has started.
        _ = tokio::signal::ctrl_c(), if !hold => return ExitCode::from(130),
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn demo(engine: Engine, behind_envoy: bool, hold: bool) -> Result<(), Error> {
    let summary =
        if behind_envoy { run::<Envoy>(engine, hold).await? } else { run::<Haproxy>(engine, hold).await? };
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/demo");
    std::fs::create_dir_all(&folder)?;
    std::fs::write(folder.join("summary.json"), serde_json::to_string_pretty(&summary)?)?;
    println!("\nalso in target/demo/summary.json");
    Ok(())
}
