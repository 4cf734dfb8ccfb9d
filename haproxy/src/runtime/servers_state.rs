//! `show servers state`: the admin flags, which nothing else shows.

/// An admin state that can be set.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum AdminState {
    /// No admin flag.
    Ready,
    /// No new sessions; those that are there go on.
    Drain,
    /// No sessions.
    Maint,
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

/// A server's row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerState {
    /// The backend.
    pub backend: String,
    /// The server.
    pub server: String,
    /// Its address now.
    pub address: String,
    /// Its port now.
    pub port: u16,
    /// Whether it is running for health's sake (2), stopped (0), starting (1) or stopping (3).
    pub operational: u8,
    /// The admin bits, `srv_admin_state`.
    pub admin: u8,
    /// The weight in force, as set.
    pub weight: u32,
}

impl ServerState {
    /// In maintenance by a command (`FMAINT`).
    pub fn forced_maint(&self) -> bool {
        self.admin & 0x01 != 0
    }

    /// Drained by a command (`FDRAIN`).
    pub fn forced_drain(&self) -> bool {
        self.admin & 0x08 != 0
    }

    /// Any other admin bit: inherited, configured, or name resolution.
    pub fn other_admin(&self) -> bool {
        self.admin & !(0x01 | 0x08) != 0
    }

    /// Reads the answer: a version line, a `# ` header, a line a server.
    ///
    /// # Errors
    /// When it is of another format.
    pub fn parse(answer: &str) -> Result<Vec<Self>, String> {
        let mut lines = answer.lines().map(str::trim).filter(|line| !line.is_empty());
        match lines.next() {
            Some("1") => {}
            Some(other) => return Err(format!("format `{other}` instead of 1")),
            None => return Err("it is empty".into()),
        }
        let header = lines.next().and_then(|line| line.strip_prefix("# ")).ok_or("no header line")?;
        let columns: Vec<&str> = header.split(' ').collect();
        let column = |name: &str| {
            columns.iter().position(|column| *column == name).ok_or_else(|| format!("no `{name}` column"))
        };
        let (backend, server, address) = (column("be_name")?, column("srv_name")?, column("srv_addr")?);
        let (operational, admin) = (column("srv_op_state")?, column("srv_admin_state")?);
        let (weight, port) = (column("srv_uweight")?, column("srv_port")?);
        lines
            .map(|line| {
                let fields: Vec<&str> = line.split(' ').collect();
                let field = |at: usize| fields.get(at).copied().ok_or_else(|| format!("short line `{line}`"));
                let number = |at: usize| {
                    field(at)?.parse::<u32>().map_err(|_| format!("not a number in line `{line}`"))
                };
                Ok(Self {
                    backend: field(backend)?.to_owned(),
                    server: field(server)?.to_owned(),
                    address: field(address)?.to_owned(),
                    port: u16::try_from(number(port)?).map_err(|_| format!("no port in line `{line}`"))?,
                    operational: u8::try_from(number(operational)?).unwrap_or(u8::MAX),
                    admin: u8::try_from(number(admin)?)
                        .map_err(|_| format!("unknown admin bits in `{line}`"))?,
                    weight: number(weight)?,
                })
            })
            .collect()
    }
}
