//! `show stat`: one row for each frontend, backend and server; columns are found by their header.

/// A row, as far as the agent reads it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stat {
    /// The frontend or backend.
    pub proxy: String,
    /// The server, or `FRONTEND`, `BACKEND`.
    pub server: String,
    /// `UP`, `DOWN (agent)`, `MAINT`, `DRAIN (agent)` and so on; `no check` for a server that is up
    /// and has no `check`, even if it has an agent check.
    pub status: String,
    /// The number of open sessions.
    pub sessions: u64,
    pub weight: Option<u64>,
    /// Whether it is a `backup`, which takes sessions only when no other server does.
    pub backup: bool,
    /// The result of the last health check.
    pub check_status: String,
    /// The result of the last agent check.
    pub agent_status: String,
    /// `stot`: tries to connect to it since HAProxy started, each one counted.
    pub tries: u64,
    /// `wretr`, `wredis` and `econ`: tries that failed. HAProxy counts each one when the next one begins, a
    /// second later.
    pub failed: u64,
    /// `cli_abrt`: sessions that clients aborted, possibly between two tries.
    pub aborted: u64,
}

impl Stat {
    /// Reads the answer.
    ///
    /// # Errors
    /// When the header is not that of `show stat`.
    pub fn parse(answer: &str) -> Result<Vec<Self>, String> {
        let mut lines = answer.lines().map(str::trim).filter(|line| !line.is_empty());
        let header = lines.next().and_then(|line| line.strip_prefix("# ")).ok_or("no header line")?;
        let columns: Vec<&str> = header.split(',').collect();
        let column = |name: &str| columns.iter().position(|column| *column == name);
        let (Some(proxy), Some(server)) = (column("pxname"), column("svname")) else {
            return Err("no `pxname` and `svname` columns".into());
        };
        let (status, sessions, weight) = (column("status"), column("scur"), column("weight"));
        let (backup, check, agent) = (column("bck"), column("check_status"), column("agent_status"));
        let failures = ["wretr", "wredis", "econ"].map(column);
        let (tries, aborted) = (column("stot"), column("cli_abrt"));
        let row = |line| {
            let fields = fields(line);
            let text = |at: Option<usize>| at.and_then(|at| fields.get(at)).cloned().unwrap_or_default();
            let number = |at: Option<usize>| text(at).parse::<u64>().unwrap_or(0);
            Self {
                proxy: text(Some(proxy)),
                server: text(Some(server)),
                status: text(status),
                sessions: number(sessions),
                weight: text(weight).parse().ok(),
                // Of a backend, `bck` is a number of servers.
                backup: text(Some(server)) != "BACKEND" && text(backup) == "1",
                check_status: text(check),
                agent_status: text(agent),
                tries: number(tries),
                failed: failures.into_iter().map(number).sum(),
                aborted: number(aborted),
            }
        };
        Ok(lines.map(row).collect())
    }
}

/// The fields of one line; a quoted one may contain commas.
fn fields(line: &str) -> Vec<String> {
    let mut fields = vec![String::new()];
    let mut quoted = false;
    for c in line.chars() {
        match c {
            '"' => quoted = !quoted,
            ',' if !quoted => fields.push(String::new()),
            c => {
                if let Some(field) = fields.last_mut() {
                    field.push(c);
                }
            }
        }
    }
    fields
}
