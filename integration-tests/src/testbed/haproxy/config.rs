//! What goes into a test's `haproxy.cfg`.
//!
//! Only what the tests turn; anything else is a line of its own ([`Backend::line`] and its
//! like). Not a model of HAProxy's language: that is the product's.

use std::{
    collections::BTreeMap,
    fmt::Write,
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    time::Duration,
};

use super::Recipe;

/// The configuration of one [`Haproxy`](super::Haproxy).
#[derive(Clone, Debug, Default)]
pub struct HaproxyConfig {
    /// Name and default backend of each.
    pub(super) frontends: Vec<(String, String)>,
    backends: Vec<Backend>,
    /// Stats sockets beside the one at level admin.
    pub(super) sockets: Vec<(String, Level)>,
    pub(super) tcp_stats: bool,
    server_state: bool,
    global: Vec<String>,
    defaults: Vec<String>,
    /// Text instead of all of these.
    pub(super) recipe: Option<Recipe>,
}

/// What a stats socket may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// `show stat`, `show info`, `show servers state`.
    User,
    Operator,
    /// And `set server`, `shutdown session`.
    Admin,
}

/// A backend and its servers.
#[derive(Clone, Debug)]
pub struct Backend {
    name: String,
    servers: Vec<Server>,
    lines: Vec<String>,
}

/// A server of a backend.
#[derive(Clone, Debug)]
pub struct Server {
    name: String,
    address: SocketAddr,
    agent: Option<(SocketAddr, Duration)>,
    words: Vec<String>,
}

/// Where a running HAProxy's files and listeners are.
pub(super) struct Place<'a> {
    pub folder: &'a Path,
    /// Frontend → its port on 127.0.0.1.
    pub ports: &'a BTreeMap<String, u16>,
    pub tcp_stats: Option<SocketAddr>,
}

impl HaproxyConfig {
    /// TCP mode, a stats socket at level admin, a master socket, sessions logged.
    pub fn new() -> Self {
        Self::default()
    }

    /// A frontend on a free port of 127.0.0.1, all of whose sessions go to one backend.
    #[must_use]
    pub fn frontend(mut self, name: &str, backend: &str) -> Self {
        self.frontends.push((name.to_owned(), backend.to_owned()));
        self
    }

    #[must_use]
    pub fn backend(mut self, backend: Backend) -> Self {
        self.backends.push(backend);
        self
    }

    /// Another stats socket, `NAME.sock` in its folder.
    #[must_use]
    pub fn stats_socket(mut self, name: &str, level: Level) -> Self {
        self.sockets.push((name.to_owned(), level));
        self
    }

    /// A stats socket at level admin on a free TCP port of 127.0.0.1.
    #[must_use]
    pub fn tcp_stats(mut self) -> Self {
        self.tcp_stats = true;
        self
    }

    /// Server states are read from a file at each start and reload
    /// ([`Haproxy::save_server_state`](super::Haproxy::save_server_state) writes it).
    #[must_use]
    pub fn server_state_file(mut self) -> Self {
        self.server_state = true;
        self
    }

    /// The same from a file that another program writes.
    #[must_use]
    pub fn server_state_in(self, file: &Path) -> Self {
        self.global_line(&format!("server-state-file {}", file.display()))
            .defaults_line("load-server-state-from-file global")
    }

    /// A line of the section `global`.
    #[must_use]
    pub fn global_line(mut self, line: &str) -> Self {
        self.global.push(line.to_owned());
        self
    }

    /// A line of the section `defaults`; the last of a kind wins.
    #[must_use]
    pub fn defaults_line(mut self, line: &str) -> Self {
        self.defaults.push(line.to_owned());
        self
    }

    pub(super) fn text(&self, place: &Place<'_>) -> String {
        if let Some(recipe) = &self.recipe {
            return recipe.text(place);
        }
        let folder = place.folder.display();
        let mut lines = vec!["global".to_owned()];
        let mut line = |text: String| lines.push(format!("    {text}"));
        line(format!("log {folder}/log.sock len 8192 local0"));
        line(format!("stats socket {folder}/admin.sock mode 600 level admin"));
        for (name, level) in &self.sockets {
            line(format!("stats socket {folder}/{name}.sock mode 600 level {}", level.word()));
        }
        if let Some(address) = place.tcp_stats {
            line(format!("stats socket {address} level admin"));
        }
        if self.server_state {
            line(format!("server-state-file {folder}/server-state"));
        }
        self.global.iter().cloned().for_each(&mut line);

        lines.push("\ndefaults".to_owned());
        let mut line = |text: &str| lines.push(format!("    {text}"));
        line("mode tcp");
        line("log global");
        line("option tcplog");
        line("timeout connect 2s");
        line("timeout client 1h");
        line("timeout server 1h");
        if self.server_state {
            line("load-server-state-from-file global");
        }
        self.defaults.iter().for_each(|text| line(text));

        for (name, backend) in &self.frontends {
            let port = place.ports.get(name).copied().unwrap_or_default();
            lines.push(format!(
                "\nfrontend {name}\n    bind 127.0.0.1:{port}\n    bind unix@{folder}/{name}.sock mode 666\n    \
                 default_backend {backend}"
            ));
        }
        lines.extend(self.backends.iter().map(Backend::text));
        lines.push(String::new());
        lines.join("\n")
    }
}

impl Level {
    fn word(self) -> &'static str {
        match self {
            Level::User => "user",
            Level::Operator => "operator",
            Level::Admin => "admin",
        }
    }
}

impl Backend {
    /// A backend without servers yet.
    pub fn new(name: &str) -> Self {
        Self { name: name.to_owned(), servers: Vec::new(), lines: Vec::new() }
    }

    #[must_use]
    pub fn server(mut self, server: Server) -> Self {
        self.servers.push(server);
        self
    }

    /// A last server on which nothing listens: clients that find no server try again, one second apart.
    #[must_use]
    pub fn waiting_room(self) -> Self {
        let nothing = (Ipv4Addr::LOCALHOST, 9).into();
        self.server(Server::new("wait", nothing).backup().words("no-agent-check"))
    }

    /// A line of this section, `balance leastconn` for one.
    #[must_use]
    pub fn line(mut self, line: &str) -> Self {
        self.lines.push(line.to_owned());
        self
    }

    fn text(&self) -> String {
        let mut text = format!("\nbackend {}", self.name);
        let servers = self.servers.iter().map(|server| server.text(&self.name));
        for line in self.lines.iter().cloned().chain(servers) {
            // Writing into a String does not fail.
            let _ = write!(text, "\n    {line}");
        }
        text
    }
}

impl Server {
    /// A server that is always up.
    pub fn new(name: &str, address: SocketAddr) -> Self {
        Self { name: name.to_owned(), address, agent: None, words: Vec::new() }
    }

    /// The agent at this address is asked for `backend/server`, this often.
    #[must_use]
    pub fn agent_check(mut self, agent: SocketAddr, every: Duration) -> Self {
        self.agent = Some((agent, every));
        self
    }

    /// Closes its sessions when it is marked down, or put into maintenance.
    #[must_use]
    pub fn closes_when_down(self) -> Self {
        self.words("on-marked-down shutdown-sessions")
    }

    /// Takes sessions only when no other server does.
    #[must_use]
    pub fn backup(self) -> Self {
        self.words("backup")
    }

    /// More words of its line, `weight 10` for one.
    #[must_use]
    pub fn words(mut self, words: &str) -> Self {
        self.words.push(words.to_owned());
        self
    }

    fn text(&self, backend: &str) -> String {
        let Self { name, address, agent, words } = self;
        let mut words = words.clone();
        if let Some((agent, every)) = agent {
            words.push(format!(
                "agent-check agent-addr {} agent-port {} agent-inter {}ms agent-send \"{backend}/{name}\\n\"",
                agent.ip(),
                agent.port(),
                every.as_millis(),
            ));
        }
        format!("server {name} {address} {}", words.join(" "))
    }
}
