//! `doctor`: reads files, asks AWS, logs in, and hands what it sees to the rules, which are in the crate [`doctor`](::doctor).

mod aws;
mod live;

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use agent_core::plan::Mode;
use agent_database::Address;
use doctor::{
    catalogue, envoy,
    finding::Report,
    haproxy,
    setup::{Agent, Backend, Server, Setup},
    source::Source,
};

use super::{Exit, complain, print, print_json};
use crate::{
    cli::{AwsAnswers, Doctor, Format},
    config::{self, Config, Proxy, ProxyKind, file::Engine},
};

pub(super) async fn doctor(arguments: &Doctor) -> Exit {
    let Usable { version, config, ports } = match usable(arguments) {
        Ok(usable) => usable,
        Err(error) => {
            complain(error);
            return Exit::Usage;
        }
    };
    let mut report = Report::default();
    let environment: BTreeMap<String, String> = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect();
    let setup = |wanted: fn(&Proxy) -> bool| Setup {
        haproxy: version,
        environment: environment.clone(),
        agent: config.as_ref().map(|config| agent(config, wanted)),
        ..Setup::default()
    };
    let files = read(&arguments.haproxy, &mut report);
    let mut admitted = None;
    if !files.is_empty() {
        let setup = setup(|proxy| matches!(proxy.kind, ProxyKind::Haproxy(_)));
        report.findings.extend(haproxy::check(&files, &setup));
        admitted = haproxy::admitted(&files, &setup);
    }
    let files = read(&arguments.envoy, &mut report);
    if !files.is_empty() {
        let setup = setup(|proxy| matches!(proxy.kind, ProxyKind::Envoy(_)));
        report.findings.extend(envoy::check(&files, &setup));
    }
    aws_answers(arguments, config.as_ref(), admitted, &mut report).await;
    if let Some(config) = config.as_ref().filter(|_| arguments.live) {
        live::examine(config, &ports, &mut report).await;
    }
    report.finish(&arguments.allow);
    match arguments.output.output {
        Format::Json => print_json(&report),
        Format::Text => print(&report),
    }
    if report.fails(arguments.strict) {
        Exit::Problem
    } else if report.skipped.is_empty() {
        Exit::Ok
    } else {
        Exit::CouldNotCheck
    }
}

async fn aws_answers(
    arguments: &Doctor,
    config: Option<&Config>,
    admitted: Option<u64>,
    report: &mut Report,
) {
    let recorded = |answers: &AwsAnswers| match answers {
        AwsAnswers::Api => None,
        AwsAnswers::File(path) => Some(path.clone()),
    };
    let files = read(&arguments.aws.iter().filter_map(recorded).collect::<Vec<_>>(), report);
    let mut instances = config.map(aws::instances).unwrap_or_default();
    let fetched = match config.filter(|_| arguments.aws.contains(&AwsAnswers::Api)) {
        Some(config) => aws::fetch(config, &mut instances, report).await,
        None => Vec::new(),
    };
    let setup = Setup {
        today: Some(jiff::Timestamp::now().as_second().div_euclid(24 * 3600)),
        instances,
        proxy_connections: admitted,
        ..Setup::default()
    };
    report.findings.extend(doctor::aws::check(&files, &fetched, &setup));
}

/// The arguments, if they make sense.
struct Usable {
    version: Option<doctor::setup::Version>,
    config: Option<Config>,
    ports: Vec<live::Port>,
}

fn usable(arguments: &Doctor) -> Result<Usable, String> {
    let rules: Vec<&str> = catalogue::all().iter().map(|about| about.id).collect();
    for allowed in &arguments.allow {
        if !rules.contains(&allowed.as_str()) {
            let nearest = config::nearest(allowed, &rules).map(|id| format!("; did you mean `{id}`?"));
            return Err(format!("--allow: there is no rule `{allowed}`{}", nearest.unwrap_or_default()));
        }
    }
    let version = match &arguments.haproxy_version {
        None => None,
        Some(text) => {
            let version = haproxy::condition::version(text);
            Some(version.ok_or_else(|| format!("--haproxy-version: `{text}` is not a version like 3.2"))?)
        }
    };
    let config = match &arguments.config {
        None => None,
        Some(path) => Some(config::load(path).map_err(|problems| problems.to_string())?.config),
    };
    let ports = match &config {
        Some(config) => arguments.through.iter().map(|text| port(config, text)).collect::<Result<_, _>>()?,
        None if arguments.live => return Err("--live needs the agent's configuration: --config".into()),
        None => Vec::new(),
    };
    if config.is_none() && arguments.aws.contains(&AwsAnswers::Api) {
        return Err("--aws asks AWS for the instances of the agent's configuration: --config".into());
    }
    let files = arguments.haproxy.len() + arguments.envoy.len() + arguments.aws.len();
    if files == 0 && !arguments.live {
        return Err(
            "nothing to examine: name files with --haproxy or --envoy, ask AWS with --aws, or log in with --live"
                .into()
        );
    }
    Ok(Usable { version, config, ports })
}

/// A port of a proxy: `DATABASE=HOST:PORT`.
fn port(config: &Config, text: &str) -> Result<live::Port, String> {
    let parts = text.split_once('=').and_then(|(database, address)| {
        let (host, port) = address.rsplit_once(':')?;
        Some((database, Address::new(host.trim_matches(['[', ']']), port.parse().ok()?)))
    });
    let (database, address) =
        parts.ok_or_else(|| format!("--through: `{text}` is not DATABASE=HOST:PORT"))?;
    if !config.databases.iter().any(|known| known.name == database) {
        return Err(format!("--through: there is no database `{database}`"));
    }
    Ok(live::Port { database: database.to_owned(), address })
}

/// The files in HAProxy's order: of a folder those with the extension `cfg`, by name.
fn read(paths: &[PathBuf], report: &mut Report) -> Vec<Source> {
    let mut sources = Vec::new();
    for path in paths {
        let files = if path.is_dir() { folder(path) } else { Ok(vec![path.clone()]) };
        let texts = files.map(|files| {
            files.into_iter().map(|file| {
                // Not UTF-8: comments in another encoding are no reason to refuse the file.
                let text = fs::read(&file).map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
                (file, text)
            })
        });
        match texts {
            Ok(texts) => {
                for (file, text) in texts {
                    let name = file.display().to_string();
                    match text {
                        Ok(text) => {
                            report.examined.push(name.clone());
                            sources.push(Source { name, text });
                        }
                        Err(error) => report.skipped.push(format!("{name}: {error}")),
                    }
                }
            }
            Err(error) => report.skipped.push(format!("{}: {error}", path.display())),
        }
    }
    sources
}

fn folder(path: &Path) -> io::Result<Vec<PathBuf>> {
    let entries: Vec<PathBuf> =
        fs::read_dir(path)?.map(|entry| Ok(entry?.path())).collect::<io::Result<_>>()?;
    let hidden = |file: &Path| file.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
    let mut files: Vec<PathBuf> = entries
        .into_iter()
        .filter(|file| file.extension().is_some_and(|kind| kind == "cfg") && !hidden(file))
        .collect();
    files.sort();
    if files.is_empty() { Err(io::Error::other("no file *.cfg in this folder")) } else { Ok(files) }
}

/// What the proxies of one kind have to agree with.
fn agent(config: &Config, wanted: fn(&Proxy) -> bool) -> Agent {
    let proxies: Vec<&Proxy> = config.proxies.iter().filter(|proxy| wanted(proxy)).collect();
    let mut backends: BTreeMap<String, Backend> = BTreeMap::new();
    for server in proxies.iter().flat_map(|proxy| &proxy.servers) {
        let found = config.instances().find(|(_, instance)| *instance.id() == server.instance);
        let Some((database, instance)) = found else { continue };
        let backend = backends.entry(server.id.backend.to_string()).or_insert_with(|| Backend {
            mysql: database.engine != Engine::Postgresql,
            servers: BTreeMap::new(),
        });
        let names = [&instance.target.endpoint, &instance.target.connect];
        let known = Server {
            instance: instance.id().to_string(),
            names: names.iter().map(|address| address.host.to_ascii_lowercase()).collect(),
            port: instance.target.connect.port,
            addresses: instance.target.connect.host.parse().into_iter().collect(),
        };
        backend.servers.insert(server.id.server.to_string(), known);
    }
    let haproxies: Vec<&config::Haproxy> = proxies
        .iter()
        .filter_map(|proxy| match &proxy.kind {
            ProxyKind::Haproxy(haproxy) => Some(haproxy),
            ProxyKind::Envoy(_) => None,
        })
        .collect();
    // Of several it is unknown which one the files are for.
    let only = if let [only] = haproxies.as_slice() { Some(*only) } else { None };
    Agent {
        agent_check: config.listen.agent_check.to_string(),
        http: config.listen.http.to_string(),
        retires: config.sessions.mode == Mode::Retire,
        max_age: config.sessions.max_age,
        stats_socket: only.map(|haproxy| haproxy.socket.to_string()),
        master_socket: only.is_some_and(|haproxy| haproxy.master.is_some()),
        state_file: only
            .and_then(|haproxy| haproxy.state_file.as_ref())
            .map(|path| path.display().to_string()),
        backends,
    }
}
