//! `show servers state`: addresses, operational states, admin flags and weights of all servers.
//!
//! It does not show which servers are `backup` ([`Stat::backup`](super::Stat::backup)), who set an
//! admin flag or a weight (an operator, the agent check or the configuration), or whether a server
//! without health check really answers: such a server is running until something stops it.

use std::{
    borrow::Cow,
    net::{IpAddr, SocketAddr},
};

/// An admin state that `set server` can set.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum AdminState {
    /// Clears FMAINT and FDRAIN.
    Ready,
    /// No new sessions; existing ones continue.
    Drain,
    /// No sessions; existing ones continue unless `on-marked-down shutdown-sessions` is set.
    Maint,
}

/// `srv_op_state`: what health checks, the agent check and tracking have made of a server.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash)]
pub enum Operational {
    /// 0: down, or in maintenance.
    Stopped,
    /// 1: up, in its `slowstart`.
    Starting,
    /// 2: up.
    Running,
    /// 3: up for existing sessions only (`http-check disable-on-404`).
    Stopping,
    /// A value that no version up to 3.2 prints.
    Unknown(u32),
}

/// Whether a health check or an agent check runs.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash)]
pub enum Check {
    Absent,
    Enabled,
    /// Configured, and stopped by `disable health` or `disable agent`: the state stays as it was.
    Disabled,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerState {
    pub backend: String,
    pub server: String,
    /// The address that HAProxy connects to now. `None` (printed as `-`) for `unix@` and `abns@`
    /// addresses and for names that have not been resolved.
    pub address: Option<IpAddr>,
    /// 0 for `unix@` and `abns@` addresses.
    pub port: u16,
    /// The host name in the configuration, if there is one.
    pub fqdn: Option<String>,
    pub operational: Operational,
    /// `srv_admin_state`, a set of the bits below.
    pub admin: u32,
    /// `srv_uweight`: the weight in force, 0 to 256. 0 sends no new sessions here, whatever set it.
    pub weight: u32,
    /// `srv_iweight`: the weight in the configuration.
    pub initial_weight: u32,
    pub check: Check,
    pub agent: Check,
    /// The port of the health check, if it is another than the server's. `None` if the version does not print it.
    pub check_port: Option<u16>,
    /// `agent-port`. `None` if there is no agent check, or the version does not print it.
    pub agent_port: Option<u16>,
}

/// In maintenance by `set server`, by the agent check or by `disabled` in the configuration.
const FMAINT: u32 = 0x01;

/// Drained by `set server` or by the agent check.
pub(super) const FDRAIN: u32 = 0x08;

// `srv_check_state` and `srv_agent_state`.
const CONFIGURED: u32 = 0x02;
const ENABLED: u32 = 0x04;

// === impl ServerState ===

impl ServerState {
    pub fn forced_maint(&self) -> bool {
        self.admin & FMAINT != 0
    }

    pub fn forced_drain(&self) -> bool {
        self.admin & FDRAIN != 0
    }

    /// Any other bit: IMAINT 02, CMAINT 04, IDRAIN 10, RMAINT 20 (the name cannot be resolved),
    /// HMAINT 40, or one of a later version.
    pub fn other_admin(&self) -> bool {
        self.admin & !(FMAINT | FDRAIN) != 0
    }

    /// Whether HAProxy sends new sessions here: up, no admin flag, and a weight above 0. A `backup`
    /// server for which this is true gets them only when no other server does.
    pub fn takes_new_sessions(&self) -> bool {
        let up = matches!(self.operational, Operational::Starting | Operational::Running);
        up && self.admin == 0 && self.weight > 0
    }

    /// The address and port that HAProxy connects to; see [`address`](Self::address).
    pub fn socket_address(&self) -> Option<SocketAddr> {
        Some(SocketAddr::new(self.address?, self.port))
    }

    /// Reads the answer: a version line, a `# ` header, a line for each server.
    ///
    /// # Errors
    /// When the format is another one; then nothing of it is used.
    pub fn parse(answer: &str) -> Result<Vec<Self>, String> {
        let table = Table::read(answer)?;
        let column = |name| table.column(name);
        let (backend, server, fqdn) = (column("be_name")?, column("srv_name")?, column("srv_fqdn")?);
        let (address, port) = (column("srv_addr")?, column("srv_port")?);
        let (operational, admin) = (column("srv_op_state")?, column("srv_admin_state")?);
        let (weight, initial_weight) = (column("srv_uweight")?, column("srv_iweight")?);
        let (check, agent) = (column("srv_check_state")?, column("srv_agent_state")?);
        let (check_port, agent_port) = (column("srv_check_port").ok(), column("srv_agent_port").ok());
        let state = |row: Row<'_>| {
            Ok(Self {
                backend: row.field(backend)?.to_owned(),
                server: row.field(server)?.to_owned(),
                address: match row.field(address)? {
                    "-" => None,
                    address => Some(address.parse().map_err(|_| row.error("no address"))?),
                },
                port: row.number(port)?.try_into().map_err(|_| row.error("no port"))?,
                fqdn: Some(row.field(fqdn)?).filter(|name| *name != "-").map(str::to_owned),
                operational: row.number(operational)?.into(),
                admin: row.number(admin)?,
                weight: row.number(weight)?,
                initial_weight: row.number(initial_weight)?,
                check: Check::from_bits(row.number(check)?),
                agent: Check::from_bits(row.number(agent)?),
                check_port: row.port(check_port),
                agent_port: row.port(agent_port),
            })
        };
        table.rows().map(state).collect()
    }
}

impl AdminState {
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Drain => "drain",
            Self::Maint => "maint",
        }
    }
}

impl From<u32> for Operational {
    fn from(number: u32) -> Self {
        match number {
            0 => Self::Stopped,
            1 => Self::Starting,
            2 => Self::Running,
            3 => Self::Stopping,
            other => Self::Unknown(other),
        }
    }
}

impl Check {
    fn from_bits(bits: u32) -> Self {
        match (bits & CONFIGURED != 0, bits & ENABLED != 0) {
            (false, _) => Self::Absent,
            (true, true) => Self::Enabled,
            (true, false) => Self::Disabled,
        }
    }
}

// === the table ===

/// The answer as columns and rows; columns are found by name.
pub(super) struct Table<'a> {
    header: &'a str,
    columns: Vec<&'a str>,
    rows: Vec<&'a str>,
}

pub(super) struct Row<'a> {
    line: &'a str,
    fields: Vec<Cow<'a, str>>,
}

impl<'a> Table<'a> {
    pub(super) fn read(answer: &'a str) -> Result<Self, String> {
        let mut lines = answer.lines().map(str::trim).filter(|line| !line.is_empty());
        match lines.next() {
            Some("1") => {}
            Some(other) => return Err(format!("format `{other}` instead of 1")),
            None => return Err("it is empty".into()),
        }
        let header = lines.next().ok_or("no header line")?;
        let columns = header.strip_prefix("# ").ok_or("no header line")?.split(' ').collect();
        Ok(Self { header, columns, rows: lines.collect() })
    }

    /// The header line, with its `# `.
    pub(super) fn header(&self) -> &'a str {
        self.header
    }

    pub(super) fn column(&self, name: &str) -> Result<usize, String> {
        self.columns.iter().position(|column| *column == name).ok_or_else(|| format!("no `{name}` column"))
    }

    pub(super) fn rows(&self) -> impl Iterator<Item = Row<'a>> {
        self.rows.iter().map(|line| Row { line, fields: line.split(' ').map(Cow::Borrowed).collect() })
    }
}

impl Row<'_> {
    pub(super) fn field(&self, column: usize) -> Result<&str, String> {
        self.fields.get(column).map(AsRef::as_ref).ok_or_else(|| self.error("too few fields"))
    }

    pub(super) fn number(&self, column: usize) -> Result<u32, String> {
        self.field(column)?.parse().map_err(|_| self.error("not a number"))
    }

    /// A port that is set; 0 and `-` are none.
    fn port(&self, column: Option<usize>) -> Option<u16> {
        let port = self.field(column?).ok()?.parse().ok()?;
        (port != 0).then_some(port)
    }

    pub(super) fn set(&mut self, column: usize, value: u32) {
        if let Some(field) = self.fields.get_mut(column) {
            *field = value.to_string().into();
        }
    }

    pub(super) fn write(&self, file: &mut String) {
        file.push_str(&self.fields.join(" "));
        file.push('\n');
    }

    fn error(&self, what: &str) -> String {
        format!("{what} in line `{}`", self.line)
    }
}
