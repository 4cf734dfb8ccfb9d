//! What runs in the process with an environment of its own.

use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use agent_aws::{ChainOptions, CredentialChain, Region, Target, Token, TokenSource};
use serde_json::{Value, json};

/// Names the script in the child's environment.
pub const SCRIPT: &str = "CHAIN_TEST_SCRIPT";
/// Names a profile as the agent's configuration would.
pub const PROFILE: &str = "CHAIN_TEST_PROFILE";
/// Begins each line that is for the test.
pub const MARK: &str = "report ";

/// Proves that the log of everything is on.
pub const LOG_IS_ON: &str = "even this is logged";

const HOST: &str = "orders.abc123.eu-west-1.rds.amazonaws.com";

#[test]
#[ignore = "is run by the other tests, in a process with an environment of its own"]
fn child() {
    let Ok(script) = std::env::var(SCRIPT) else { return };
    // The harness has begun a line.
    println!();
    // Everything that any crate logs, so that the test can look for secrets in it.
    tracing_subscriber::fmt()
        .with_max_level(tracing_subscriber::filter::LevelFilter::TRACE)
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .init();
    tracing::trace!("{LOG_IS_ON}");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
    runtime.block_on(async {
        match script.as_str() {
            "once" => once().await,
            "until-token" => until_token().await,
            "rotate" => rotate().await,
            "region" => region().await,
            other => panic!("no script {other}"),
        }
    });
}

fn source() -> TokenSource {
    let region = Region::from_endpoint(HOST).expect("region");
    let target = Target::new(HOST, 5432, "app", region.clone()).expect("target");
    TokenSource::start(chain(Some(region)), target)
}

fn chain(region_hint: Option<Region>) -> CredentialChain {
    let profile = std::env::var(PROFILE).ok();
    CredentialChain::standard(ChainOptions { profile, region_hint, ..ChainOptions::default() })
}

fn report(line: &Value) {
    println!("{MARK}{line}");
}

fn left(token: &Token) -> f64 {
    token.expires_in(SystemTime::now()).as_secs_f64()
}

async fn once() {
    let source = source();
    let start = Instant::now();
    match source.token().await {
        Ok(token) => {
            assert!(token.expose_secret().starts_with(HOST));
            report(
                &json!({"provider": token.provider(), "expires_in_s": left(&token), "shown": shown(&source, &token)}),
            );
        }
        Err(error) => {
            let shown = format!("{source:?} {error:?} {:?} {}", source.chain(), json!(source.status()));
            report(
                &json!({"error": error.to_string(), "took_s": start.elapsed().as_secs_f64(), "shown": shown}),
            );
        }
    }
}

/// Everything that anybody could print; the test looks for secrets in it.
fn shown(source: &TokenSource, token: &Arc<Token>) -> String {
    let shown = format!(
        "{source:?} {token:?} {:?} {:?} {} {}",
        source.target(),
        source.chain(),
        json!(source.status()),
        json!(source.chain().status()),
    );
    assert!(!shown.contains(token.expose_secret()));
    let (_, signature) = token.expose_secret().rsplit_once('=').expect("signature");
    assert!(!shown.contains(signature));
    shown
}

async fn until_token() {
    let source = source();
    let deadline = Instant::now() + super::PATIENCE;
    let failed = PathBuf::from(std::env::var("HOME").expect("home")).join("first-error");
    loop {
        match source.token().await {
            Ok(token) => {
                return report(&json!({"provider": token.provider(), "expires_in_s": left(&token)}));
            }
            Err(error) => {
                assert!(Instant::now() < deadline, "{error}");
                std::fs::write(&failed, error.to_string()).expect("file");
            }
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Asks all the time until six tokens were handed out; reports each with the least
/// life it was handed out with.
async fn rotate() {
    let source = source();
    let deadline = Instant::now() + super::PATIENCE;
    let mut tokens: Vec<(Arc<Token>, f64)> = Vec::new();
    while tokens.len() < 6 {
        assert!(Instant::now() < deadline, "{:?}", source.status());
        match source.token().await {
            Ok(token) => match tokens.last_mut().filter(|(last, _)| Arc::ptr_eq(last, &token)) {
                Some((_, least)) => *least = least.min(left(&token)),
                None => tokens.push((token.clone(), left(&token))),
            },
            Err(error) => report(&json!({"error": error.to_string()})),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    for (token, least) in tokens {
        report(&json!({"provider": token.provider(), "least_s": least}));
    }
}

async fn region() {
    let chain = chain(None);
    let start = Instant::now();
    match Region::resolve(None, "db.example.com", chain.region()).await {
        Ok(region) => report(&json!({"region": region})),
        Err(error) => report(&json!({"error": error.to_string(), "took_s": start.elapsed().as_secs_f64()})),
    }
}
