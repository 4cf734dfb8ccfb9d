//! `show stat`: one row a proxy and server, columns by their header.

/// A row of `show stat`, as far as the agent reads it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stat {
    /// The frontend or backend.
    pub proxy: String,
    /// The server, or `FRONTEND`, `BACKEND`.
    pub server: String,
    /// `UP`, `DOWN (agent)`, `MAINT`, `DRAIN (agent)`, ... and `no check` for a server that is up
    /// and has no `check`, even though it has an agent check.
    pub status: String,
    /// Sessions now.
    pub sessions: u64,
    /// The effective weight.
    pub weight: Option<u64>,
    /// The last health check's result.
    pub check_status: String,
    /// The last agent check's result.
    pub agent_status: String,
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
        let (check, agent) = (column("check_status"), column("agent_status"));
        Ok(lines
            .map(|line| {
                let fields = fields(line);
                let text = |at: Option<usize>| at.and_then(|at| fields.get(at)).cloned().unwrap_or_default();
                Self {
                    proxy: text(Some(proxy)),
                    server: text(Some(server)),
                    status: text(status),
                    sessions: text(sessions).parse().unwrap_or(0),
                    weight: text(weight).parse().ok(),
                    check_status: text(check),
                    agent_status: text(agent),
                }
            })
            .collect())
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
