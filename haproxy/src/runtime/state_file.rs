//! The server state file (`server-state-file`) that HAProxy loads when it starts or reloads.
//!
//! Without one, every server starts UP, also those that are DOWN for their role. Measured on 2.6, 2.8
//! and 3.0 with `load-server-state-from-file global`:
//! - The operational state, maintenance, drains and the port come from the file. **The port overrides
//!   the one in the configuration**; a fixed address and `disabled` do not.
//! - A weight comes from the file only while the configured weight is the one in the file.
//! - A drain or maintenance in the file cannot be told from an operator's. So the agent's own drains
//!   are left out of the file.
//! - Servers that the file does not name start as without a file; unknown servers in it are ignored.
//! - A server that the file has DOWN stays DOWN until its check passes and the agent check says `up`:
//!   a neutral answer changes nothing.
//!
//! Not here: writing the file. It has to be replaced atomically, since HAProxy may read it at any time.

use std::fmt::Write;

use super::servers_state::{FDRAIN, Table};

/// A check that is under way (`CHK_ST_INPROGRESS`) is not part of a state.
const IN_PROGRESS: u32 = 0x01;

/// Renders the answer to `show servers state` as a server state file, without the drains for which
/// `is_own_drain(backend, server)` is true.
///
/// The result is the same as long as no state changes: ages are 0 and no check is in progress.
///
/// # Errors
/// When the answer has another format; then nothing of it is used.
pub fn render(answer: &str, is_own_drain: impl Fn(&str, &str) -> bool) -> Result<String, String> {
    let table = Table::read(answer)?;
    let (backend, server) = (table.column("be_name")?, table.column("srv_name")?);
    let (admin, age) = (table.column("srv_admin_state")?, table.column("srv_time_since_last_change")?);
    let checks = [table.column("srv_check_state")?, table.column("srv_agent_state")?];
    let mut file = format!("1\n{}\n", table.header());
    for mut row in table.rows() {
        let mut flags = row.number(admin)?;
        if is_own_drain(row.field(backend)?, row.field(server)?) {
            flags &= !FDRAIN;
        }
        row.set(admin, flags);
        row.set(age, 0);
        for check in checks {
            let state = row.number(check)? & !IN_PROGRESS;
            row.set(check, state);
        }
        row.write(&mut file);
    }
    Ok(file)
}

/// A server in the first file of a host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FirstState {
    pub backend: String,
    pub server: String,
    /// As in the configuration: the file overrides it there.
    pub port: u16,
}

/// Renders the first file of a host that has none: these servers start DOWN, and come up when their
/// check passes and the agent check says `up`. Only for backends with a `backup` that serves until then.
pub fn all_down<'a>(servers: impl IntoIterator<Item = &'a FirstState>) -> String {
    let mut file = "1\n# be_id be_name srv_id srv_name srv_addr srv_op_state srv_admin_state srv_uweight \
        srv_iweight srv_time_since_last_change srv_check_status srv_check_result srv_check_health \
        srv_check_state srv_agent_state bk_f_forced_id srv_f_forced_id srv_fqdn srv_port srvrecord \
        srv_use_ssl srv_check_port srv_check_addr srv_agent_addr srv_agent_port\n"
        .to_owned();
    for FirstState { backend, server, port } in servers {
        // Check status 8 and result 2 are a failed connection: HAProxy 2.6 and 2.8 never complete the
        // first check of a server that the file shows as never checked.
        let _ = writeln!(file, "0 {backend} 0 {server} - 0 0 1 1 0 8 2 0 6 0 0 0 - {port} - 0 0 - - 0");
    }
    file
}
