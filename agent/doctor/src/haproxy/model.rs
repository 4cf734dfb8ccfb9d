//! What the lines of a HAProxy configuration mean: proxies with what they inherit, and servers with the settings
//! of their `default-server` lines.

use super::{
    parse::{Line, Parsed, Section},
    words::milliseconds,
};
use crate::{
    position::Position,
    setup::{self, Setup, Version},
};

pub struct Config {
    pub global: Vec<Line>,
    pub resolvers: Vec<Section>,
    /// The proxies that lead to databases.
    pub proxies: Vec<Proxy>,
    /// The `default_backend` lines of all frontends.
    pub targets: Vec<Line>,
    /// The names of all sections that can have servers.
    pub backends: Vec<String>,
    pub version: Option<Version>,
    pub mistakes: Vec<crate::rule::Found>,
    /// The first line of the first file.
    pub start: Position,
}

pub struct Proxy {
    pub name: String,
    pub at: Position,
    /// A `listen` is both.
    pub frontend: bool,
    pub backend: bool,
    /// Whether its servers are of the MySQL family.
    pub mysql: bool,
    /// Inherited lines first; a later line overrides an earlier one.
    pub lines: Vec<Line>,
    pub servers: Vec<Server>,
}

pub struct Server {
    pub name: String,
    pub at: Position,
    /// Without brackets; may be a path or a name.
    pub host: String,
    pub port: Option<u16>,
    settings: Vec<Setting>,
}

/// A keyword of a server, with its value if it has one.
struct Setting {
    keyword: String,
    value: String,
    at: Position,
    /// Whether a `default-server` line has it.
    default: bool,
}

/// Keywords of servers without a value, beside those that begin with `no-`.
const FLAGS: [&str; 19] = [
    "agent-check",
    "allow-0rtt",
    "backup",
    "check",
    "check-send-proxy",
    "check-ssl",
    "check-via-socks4",
    "disabled",
    "enabled",
    "non-stick",
    "send-proxy",
    "send-proxy-v2",
    "send-proxy-v2-ssl",
    "send-proxy-v2-ssl-cn",
    "ssl",
    "ssl-reuse",
    "stick",
    "tfo",
    "tls-tickets",
];

impl Server {
    fn new(line: &Line, first: usize, defaults: &[Line]) -> Self {
        let (host, port) = address(line.word(first));
        let mut settings = Vec::new();
        for default in defaults {
            read(&mut settings, default, 1, true);
        }
        read(&mut settings, line, first + 1, false);
        Self { name: line.word(first - 1).to_owned(), at: line.at.clone(), host, port, settings }
    }

    fn setting(&self, keyword: &str) -> Option<&Setting> {
        let opposite = |setting: &Setting| setting.keyword.strip_prefix("no-") == Some(keyword);
        let of = |setting: &&Setting| setting.keyword == keyword || opposite(setting);
        self.settings.iter().rev().find(of).filter(|setting| !opposite(setting))
    }

    pub fn has(&self, keyword: &str) -> bool {
        self.setting(keyword).is_some()
    }

    pub fn value(&self, keyword: &str) -> Option<&str> {
        self.setting(keyword).map(|setting| setting.value.as_str())
    }

    pub fn milliseconds(&self, keyword: &str) -> Option<u64> {
        self.value(keyword).and_then(milliseconds)
    }

    /// The line that a setting comes from; the server's own if there is no such setting.
    pub fn line_of(&self, keyword: &str) -> Position {
        self.setting(keyword).map_or_else(|| self.at.clone(), |setting| setting.at.clone())
    }

    /// Whether the setting is on the server's own line, and no `default-server` line has it.
    pub fn only_own(&self, keyword: &str) -> bool {
        self.has(keyword)
            && !self.settings.iter().any(|setting| setting.default && setting.keyword == keyword)
    }

    /// Whether it is for the time when no other server is usable: the waiting room, or a name by DNS.
    pub fn backup(&self) -> bool {
        self.has("backup")
    }

    /// Whether the address is a name, which HAProxy has to resolve.
    pub fn named(&self) -> bool {
        let plain = self.host.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_'));
        plain && self.host.contains(|c: char| c.is_ascii_alphabetic()) && !self.host.contains('$')
    }
}

fn read(settings: &mut Vec<Setting>, line: &Line, first: usize, default: bool) {
    let mut words = line.words.iter().skip(first);
    while let Some(keyword) = words.next() {
        let flag =
            FLAGS.contains(&keyword.as_str()) || keyword.starts_with("no-") || keyword.starts_with("force-");
        let value = if flag { None } else { words.next() };
        settings.push(Setting {
            keyword: keyword.clone(),
            value: value.cloned().unwrap_or_default(),
            at: line.at.clone(),
            default,
        });
    }
}

/// Host and port of an address of a server.
fn address(word: &str) -> (String, Option<u16>) {
    let bare = ["ipv4@", "ipv6@", "tcp@", "tcp4@", "tcp6@"]
        .iter()
        .find_map(|prefix| word.strip_prefix(prefix))
        .unwrap_or(word);
    let (host, port) = match bare.rsplit_once(':') {
        Some((host, port)) => (host, port.parse().ok()),
        None => (bare, None),
    };
    (host.trim_matches(['[', ']']).to_ascii_lowercase(), port)
}

impl Proxy {
    /// The last line that begins with these words.
    pub fn last(&self, words: &[&str]) -> Option<&Line> {
        self.lines.iter().rev().find(|line| line.begins(words))
    }

    /// The line that switches an option on, unless a later one switches it off.
    pub fn option(&self, name: &str) -> Option<&Line> {
        let of = |line: &&Line| line.begins(&["option", name]) || line.begins(&["no", "option", name]);
        self.lines.iter().rev().find(of).filter(|line| line.word(0) == "option")
    }

    /// A timeout in milliseconds, and its line.
    pub fn timeout(&self, name: &str) -> Option<(u64, &Line)> {
        let line = self.last(&["timeout", name])?;
        Some((milliseconds(line.word(2))?, line))
    }

    /// The servers that sessions go to in normal times.
    pub fn real_servers(&self) -> impl Iterator<Item = &Server> {
        self.servers.iter().filter(|server| !server.backup())
    }

    /// Whether the server is checked over HTTP elsewhere, as in deploy/haproxy/fail-closed.cfg.
    pub fn http_checked(&self, server: &Server) -> bool {
        server.has("check") && self.option("httpchk").is_some() && (server.has("addr") || server.has("port"))
    }
}

impl Config {
    pub fn new(parsed: Parsed, setup: &Setup, start: Position) -> Self {
        let Parsed { sections, mistakes } = parsed;
        let of_kind = |kind: &'static str| sections.iter().filter(move |section| section.kind == kind);
        let mut proxies: Vec<Proxy> =
            sections.iter().filter_map(|section| proxy(&sections, section)).collect();
        let known = setup.agent.as_ref().map(|agent| &agent.backends);
        for proxy in &mut proxies {
            let known = known.and_then(|known| known.get(&proxy.name));
            proxy.mysql = known.map_or_else(|| proxy.looks_like_mysql(), |backend| backend.mysql);
        }
        let databases: Vec<(String, bool)> = proxies
            .iter()
            .filter(|proxy| {
                proxy.backend && proxy.looks_like_a_database(known.and_then(|all| all.get(&proxy.name)))
            })
            .map(|proxy| (proxy.name.clone(), proxy.mysql))
            .collect();
        let backends = proxies.iter().filter(|proxy| proxy.backend).map(|proxy| proxy.name.clone()).collect();
        let targets = proxies.iter().filter(|proxy| proxy.frontend).flat_map(|proxy| &proxy.lines);
        let targets = targets.filter(|line| line.begins(&["default_backend"])).cloned().collect();
        proxies.retain_mut(|proxy| {
            let own = proxy.backend && databases.iter().any(|(name, _)| *name == proxy.name);
            let target = databases.iter().find(|(name, _)| proxy.leads_to(name));
            if let Some((_, mysql)) = target {
                proxy.mysql = *mysql;
            }
            own || target.is_some()
        });
        Self {
            global: of_kind("global").flat_map(|section| section.lines.clone()).collect(),
            resolvers: of_kind("resolvers").cloned().collect(),
            proxies,
            targets,
            backends,
            version: setup.haproxy,
            mistakes,
            start,
        }
    }

    pub fn frontends(&self) -> impl Iterator<Item = &Proxy> {
        self.proxies.iter().filter(|proxy| proxy.frontend)
    }

    pub fn database_backends(&self) -> impl Iterator<Item = &Proxy> {
        self.proxies.iter().filter(|proxy| proxy.backend)
    }

    /// All servers that lead to databases, with their backends.
    pub fn servers(&self) -> impl Iterator<Item = (&Proxy, &Server)> {
        self.database_backends().flat_map(|proxy| proxy.servers.iter().map(move |server| (proxy, server)))
    }

    pub fn real_servers(&self) -> impl Iterator<Item = (&Proxy, &Server)> {
        self.servers().filter(|(_, server)| !server.backup())
    }

    pub fn global(&self, words: &[&str]) -> Option<&Line> {
        self.global.iter().rev().find(|line| line.begins(words))
    }
}

fn proxy(sections: &[Section], section: &Section) -> Option<Proxy> {
    let (frontend, backend) = match section.kind.as_str() {
        "frontend" => (true, false),
        "backend" => (false, true),
        "listen" => (true, true),
        _ => return None,
    };
    // A section inherits only from sections above it, so this ends.
    let mut ancestors = Vec::new();
    let mut from = section.from;
    while let Some(parent) = from.and_then(|index| sections.get(index)) {
        ancestors.push(parent);
        from = parent.from;
    }
    let mut lines: Vec<Line> = ancestors.iter().rev().flat_map(|parent| parent.lines.clone()).collect();
    lines.extend(section.lines.iter().cloned());
    let mut servers = Vec::new();
    let mut defaults = Vec::new();
    for line in &lines {
        match line.word(0) {
            "default-server" => defaults.push(line.clone()),
            "server" if line.words.len() > 2 => servers.push(Server::new(line, 2, &defaults)),
            "server-template" if line.words.len() > 3 => servers.push(Server::new(line, 3, &defaults)),
            _ => {}
        }
    }
    let (name, at) = (section.name.clone(), section.at.clone());
    Some(Proxy { name, at, frontend, backend, mysql: false, lines, servers })
}

impl Proxy {
    fn looks_like_mysql(&self) -> bool {
        let name = self.name.to_ascii_lowercase();
        let ports = |range: std::ops::RangeInclusive<u16>| {
            self.servers.iter().any(|server| server.port.is_some_and(|port| range.contains(&port)))
        };
        self.option("mysql-check").is_some()
            || name.contains("mysql")
            || name.contains("maria")
            || (ports(3306..=3309) && !ports(5432..=5439))
    }

    fn looks_like_a_database(&self, known: Option<&setup::Backend>) -> bool {
        known.is_some()
            || ["pgsql-check", "mysql-check"].iter().any(|option| self.option(option).is_some())
            || self.servers.iter().any(|server| {
                let port = server.port.is_some_and(|port| matches!(port, 3306..=3309 | 5432..=5439 | 6432));
                port || server.host.contains(".rds.amazonaws.com") || server.has("agent-check")
            })
    }

    fn leads_to(&self, backend: &str) -> bool {
        let leads = |line: &Line| {
            matches!(line.word(0), "default_backend" | "use_backend") && line.word(1) == backend
        };
        self.frontend && self.lines.iter().any(leads)
    }
}
