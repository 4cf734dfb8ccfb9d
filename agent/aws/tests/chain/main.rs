//! The standard chain as the agent has it: a process with its own environment,
//! against endpoints in the shape of AWS's own.

#![allow(clippy::expect_used, clippy::indexing_slicing, reason = "a test")]

use std::{
    collections::BTreeMap,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use serde_json::Value;
use tempfile::TempDir;

mod child;
mod server;

use server::{Reply, Server};

/// What must appear nowhere but in the token itself.
const SECRETS: [&str; 3] = ["wJalrXUtnFEMIsecretkey", "IQoJb3JpZ2luX2Vjsessiontoken", "ssoaccesstokenvalue"];
/// More than a load may take, and a process' start on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// The environment of one child: a home of its own, and no AWS around.
struct Scene {
    home: TempDir,
    env: BTreeMap<String, String>,
}

impl Scene {
    fn new() -> Self {
        let home = tempfile::tempdir().expect("folder");
        let env = [
            ("HOME", home.path().to_str().expect("UTF-8")),
            ("PATH", "/usr/bin:/bin"),
            ("AWS_EC2_METADATA_DISABLED", "true"),
        ];
        let env = env.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        Self { home, env }
    }

    fn with(mut self, name: &str, value: impl Into<String>) -> Self {
        self.env.insert(name.to_owned(), value.into());
        self
    }

    fn without(mut self, name: &str) -> Self {
        self.env.remove(name);
        self
    }

    /// With a file in the home folder.
    fn file(self, path: &str, text: &str) -> Self {
        let path = self.home.path().join(path);
        std::fs::create_dir_all(path.parent().expect("parent")).expect("folder");
        std::fs::write(path, text).expect("file");
        self
    }

    /// Runs the child's `script` and gives what it reports, a line each.
    fn run(&self, script: &str) -> Vec<Value> {
        let child = self.start(script);
        let output = child.wait_with_output().expect("output");
        let (said, logged) =
            (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{said}\n{logged}");
        assert!(logged.contains(child::LOG_IS_ON), "{logged}");
        for secret in SECRETS {
            assert!(!said.contains(secret), "{secret} in {said}");
            let line = logged.lines().find(|line| line.contains(secret));
            assert_eq!(line, None, "{secret} was logged");
        }
        said.lines()
            .filter_map(|line| line.strip_prefix(child::MARK))
            .map(|line| serde_json::from_str(line).expect("JSON"))
            .collect()
    }

    fn start(&self, script: &str) -> Child {
        // The test binary itself: a process' own environment cannot be changed safely.
        Command::new(std::env::current_exe().expect("this binary"))
            .args(["--ignored", "--exact", "child::child", "--nocapture"])
            .env_clear()
            .envs(&self.env)
            .env(child::SCRIPT, script)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("child")
    }

    /// One token: the child's only line.
    fn once(&self) -> Value {
        let [line] = <[Value; 1]>::try_from(self.run("once")).expect("one line");
        line
    }
}

fn keys(seconds: u64) -> String {
    let until = jiff::Timestamp::now() + Duration::from_secs(seconds);
    let [secret, session, _] = SECRETS;
    format!(
        r#"{{"Version": 1, "Code": "Success", "AccessKeyId": "ASIAEXAMPLE", "SecretAccessKey": "{secret}",
            "Token": "{session}", "SessionToken": "{session}", "Expiration": "{until}"}}"#
    )
}

fn container(reply: impl Fn(&server::Request) -> Reply + Send + Sync + 'static) -> (Server, Scene) {
    let server = Server::start(reply);
    let scene = Scene::new()
        .with("AWS_CONTAINER_CREDENTIALS_FULL_URI", server.url("/v1/credentials"))
        .with("AWS_CONTAINER_AUTHORIZATION_TOKEN", "let-me-in");
    (server, scene)
}

#[track_caller]
fn assert_token(line: &Value, provider: &str, expires_in: std::ops::Range<f64>) {
    assert_eq!(line["provider"].as_str(), Some(provider), "{line}");
    assert!(expires_in.contains(&line["expires_in_s"].as_f64().expect("seconds")), "{line}");
}

#[track_caller]
fn assert_error(line: &Value, words: &[&str]) {
    let error = line["error"].as_str().unwrap_or_else(|| panic!("no error: {line}"));
    for word in words {
        assert!(error.contains(word), "{word:?} is not in {error:?}");
    }
    assert!(!error.contains('\n'), "{error:?}");
    assert!(line["took_s"].as_f64().expect("seconds") < 8.0, "{line}");
}

#[test]
fn a_token_expires_with_the_credentials_of_the_container_endpoint() {
    let (server, scene) = container(|request| {
        assert_eq!(request.header("authorization"), Some("let-me-in"));
        Reply::json(keys(120))
    });
    assert_token(&scene.once(), "EcsContainer", 100.0..120.0);
    assert_eq!(server.paths(), ["GET /v1/credentials"]);
}

#[test]
fn a_silent_container_endpoint_is_an_error_within_the_timeout() {
    let (_server, scene) = container(|_| Reply::Silence);
    assert_error(
        &scene.once(),
        &["app@orders", "did not come within 5.0 s", "no answer from the container endpoint http://"],
    );
}

#[test]
fn a_container_endpoint_that_fails_is_named() {
    let (server, scene) = container(|_| Reply::status(500));
    assert_error(&scene.once(), &["could not be loaded", "500"]);
    assert!(server.paths().len() >= 2, "the SDK has tried again: {:?}", server.paths());
}

#[test]
fn a_missing_container_endpoint_is_an_error_within_the_timeout() {
    let (server, scene) = container(|_| Reply::Silence);
    drop(server);
    assert_error(&scene.once(), &["no token for app@orders"]);
}

#[test]
fn garbage_from_the_container_endpoint_is_an_error_without_the_garbage() {
    let [secret, session, _] = SECRETS;
    for garbage in [
        format!("<html>{secret}</html>"),
        format!(r#"{{"SecretAccessKey": "{secret}", "Token": "{session}""#),
        format!(r#"{{"SecretAccessKey": "{secret}", "Token": "{session}"}}"#),
        format!(
            r#"{{"AccessKeyId": "A", "SecretAccessKey": "{secret}", "Token": "{session}", "Expiration": "soon"}}"#
        ),
    ] {
        let (_server, scene) = container(move |_| Reply::json(garbage.clone()));
        assert_error(&scene.once(), &["could not be loaded"]);
    }
}

#[test]
fn expired_credentials_are_refused_before_any_login() {
    let (_server, scene) = container(|_| {
        let [secret, session, _] = SECRETS;
        Reply::json(format!(
            r#"{{"AccessKeyId": "A", "SecretAccessKey": "{secret}", "Token": "{session}", "Expiration": "2020-01-01T00:00:00Z"}}"#
        ))
    });
    assert_error(&scene.once(), &["from EcsContainer expired", "check this host's clock"]);
}

#[test]
fn no_credentials_at_all_is_an_error_with_advice() {
    assert_error(&Scene::new().once(), &["no AWS credentials here: set AWS_PROFILE"]);
}

#[test]
fn keys_in_the_environment_and_in_a_profile_give_tokens_of_full_life() {
    let [secret, ..] = SECRETS;
    let scene = Scene::new().with("AWS_ACCESS_KEY_ID", "AKIA1").with("AWS_SECRET_ACCESS_KEY", secret);
    assert_token(&scene.once(), "EnvironmentVariable", 890.0..900.0);
    let profile = format!("[lb]\naws_access_key_id = AKIA2\naws_secret_access_key = {secret}\n");
    for name in ["AWS_PROFILE", child::PROFILE] {
        let scene = Scene::new().with(name, "lb").file(".aws/credentials", &profile);
        assert_token(&scene.once(), "ProfileFile", 890.0..900.0);
    }
}

#[test]
fn a_profile_that_appears_late_is_found() {
    let scene = Scene::new();
    let child = std::thread::scope(|threads| {
        let running = threads.spawn(|| scene.run("until-token"));
        let [secret, ..] = SECRETS;
        let path = scene.home.path().join("first-error");
        let deadline = Instant::now() + PATIENCE;
        while !path.exists() {
            assert!(Instant::now() < deadline, "the child has not failed yet");
            std::thread::sleep(Duration::from_millis(20));
        }
        let aws = scene.home.path().join(".aws");
        std::fs::create_dir_all(&aws).expect("folder");
        let text = format!("[default]\naws_access_key_id = AKIA2\naws_secret_access_key = {secret}\n");
        std::fs::write(aws.join("new"), text).expect("file");
        std::fs::rename(aws.join("new"), aws.join("credentials")).expect("in place");
        running.join().expect("child")
    });
    assert_token(child.last().expect("a line"), "ProfileFile", 890.0..900.0);
}

#[test]
fn a_credential_process_gives_credentials() {
    let scene = Scene::new().file(".aws/keys.json", &keys(300));
    let path = scene.home.path().join(".aws/keys.json");
    let scene =
        scene.file(".aws/config", &format!("[default]\ncredential_process = cat {}\n", path.display()));
    assert_token(&scene.once(), "CredentialProcess", 280.0..300.0);
}

#[test]
fn a_credential_process_slower_than_the_callers_patience_gives_credentials_in_the_end() {
    let scene = Scene::new().file(".aws/keys.json", &keys(300));
    let path = scene.home.path().join(".aws/keys.json");
    let process = format!("[default]\ncredential_process = sh -c 'sleep 6; cat {}'\n", path.display());
    let lines = scene.file(".aws/config", &process).run("until-token");
    assert_token(lines.last().expect("a line"), "CredentialProcess", 280.0..300.0);
}

#[test]
fn a_missing_web_identity_file_is_named() {
    let scene = Scene::new()
        .with("AWS_WEB_IDENTITY_TOKEN_FILE", "/nowhere/token")
        .with("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/lb");
    assert_error(&scene.once(), &["could not be loaded", "/nowhere/token", "role/lb", "No such file"]);
}

#[test]
fn an_unreachable_sts_is_named_with_its_address() {
    let server = Server::start(|_| Reply::Silence);
    let url = server.url("");
    drop(server);
    let scene = Scene::new().file("token", "web-identity");
    let token = scene.home.path().join("token").display().to_string();
    let scene = scene
        .with("AWS_WEB_IDENTITY_TOKEN_FILE", token)
        .with("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/lb")
        .with("AWS_ENDPOINT_URL_STS", url.clone());
    assert_error(&scene.once(), &["web identity", &url]);
}

#[test]
fn a_setting_that_this_build_does_not_support_is_named() {
    let profile = "[default]\nlogin_session = arn:aws:sts::123456789012:assumed-role/lb/person\n";
    assert_error(&Scene::new().file(".aws/config", profile).once(), &["login_session", "not supported"]);
}

#[test]
fn a_web_identity_gives_credentials_in_the_databases_region() {
    let server = Server::start(|request| {
        assert!(request.body.contains("WebIdentityToken=web-identity"), "{}", request.body);
        let until = jiff::Timestamp::now() + Duration::from_secs(900);
        let [secret, session, _] = SECRETS;
        Reply::xml(format!(
            "<AssumeRoleWithWebIdentityResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><AssumeRoleWithWebIdentityResult>\
             <AssumedRoleUser><Arn>arn:aws:sts::123456789012:assumed-role/lb/agent</Arn><AssumedRoleId>A:agent</AssumedRoleId></AssumedRoleUser>\
             <Credentials><AccessKeyId>ASIA</AccessKeyId><SecretAccessKey>{secret}</SecretAccessKey>\
             <SessionToken>{session}</SessionToken><Expiration>{until}</Expiration></Credentials>\
             </AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>"
        ))
    });
    let scene = Scene::new().file("token", "web-identity");
    let token = scene.home.path().join("token").display().to_string();
    let scene = scene
        .with("AWS_WEB_IDENTITY_TOKEN_FILE", token)
        .with("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/lb")
        .with("AWS_ENDPOINT_URL_STS", server.url(""));
    assert_token(&scene.once(), "WebIdentityToken", 870.0..900.0);
}

#[test]
fn an_sso_session_gives_credentials() {
    let server = Server::start(|request| {
        let [secret, session, access] = SECRETS;
        assert_eq!(request.header("x-amz-sso_bearer_token"), Some(access));
        let until = jiff::Timestamp::now().as_millisecond() + 600_000;
        Reply::json(format!(
            r#"{{"roleCredentials": {{"accessKeyId": "ASIA", "secretAccessKey": "{secret}", "sessionToken": "{session}", "expiration": {until}}}}}"#
        ))
    });
    let [_, _, access] = SECRETS;
    let until = jiff::Timestamp::now() + Duration::from_secs(3600);
    let scene = Scene::new()
        .with("AWS_ENDPOINT_URL_SSO", server.url(""))
        .file(
            ".aws/config",
            "[default]\nsso_start_url = https://example.awsapps.com/start\nsso_region = eu-west-1\n\
             sso_account_id = 123456789012\nsso_role_name = lb\n",
        )
        // The name is the SHA-1 of the start URL.
        .file(
            ".aws/sso/cache/e8be5486177c5b5392bd9aa76563515b29358e6e.json",
            &format!(r#"{{"accessToken": "{access}", "expiresAt": "{until}", "region": "eu-west-1", "startUrl": "https://example.awsapps.com/start"}}"#),
        );
    assert_token(&scene.once(), "SSO", 580.0..600.0);
}

#[test]
fn an_instance_profile_gives_credentials_and_the_region() {
    let server = Server::start(|request| match request.path.as_str() {
        "PUT /latest/api/token" => {
            Reply::text("metadata-token").with("x-aws-ec2-metadata-token-ttl-seconds", "21600")
        }
        "GET /latest/meta-data/iam/security-credentials/" => Reply::text("lb"),
        "GET /latest/meta-data/iam/security-credentials/lb" => Reply::json(keys(500)),
        "GET /latest/meta-data/placement/region" => Reply::text("sa-east-1"),
        _ => Reply::status(404),
    });
    let scene = Scene::new()
        .without("AWS_EC2_METADATA_DISABLED")
        .with("AWS_EC2_METADATA_SERVICE_ENDPOINT", server.url(""));
    assert_token(&scene.once(), "IMDSv2", 480.0..500.0);
    assert_eq!(scene.run("region")[0]["region"], "sa-east-1");
    assert_eq!(scene.with("AWS_REGION", "eu-north-1").run("region")[0]["region"], "eu-north-1");
}

#[test]
fn without_a_region_anywhere_there_is_advice_and_no_default() {
    let line = &Scene::new().run("region")[0];
    assert_error(line, &["no region for \"db.example.com\"", "AWS_REGION"]);
}

#[test]
fn five_rotations_of_credentials_that_live_six_seconds_give_no_token_close_to_its_expiry() {
    let (server, scene) = container(|_| Reply::json(keys(6)));
    let lines = scene.run("rotate");
    let tokens: Vec<_> = lines.iter().filter(|line| line.get("provider").is_some()).collect();
    assert_eq!(tokens.len(), 6, "{lines:?}");
    assert!(lines.iter().all(|line| line.get("error").is_none()), "{lines:?}");
    let least =
        tokens.iter().map(|token| token["least_s"].as_f64().expect("seconds")).fold(f64::MAX, f64::min);
    // The margin is a second; a busy machine may use some of it before it looks.
    assert!(least > 0.5, "handed out with {least} s left");
    assert!(server.paths().len() <= 12, "{:?}", server.paths());
}
