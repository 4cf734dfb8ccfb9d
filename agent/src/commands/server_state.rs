//! `server-state`: HAProxy's server state file without the agent's own drains. With a running agent or without.

use std::collections::HashSet;

use haproxy::runtime::{Connection, Limits};

use super::{Exit, complain};
use crate::{
    cli::ServerState,
    config,
    state::{records::DrainRecords, server_state},
};

pub(super) async fn server_state(arguments: &ServerState) -> Exit {
    let state_dir =
        arguments.state_dir.clone().unwrap_or_else(|| config::state_dir(&arguments.config.config));
    let records = match DrainRecords::in_directory(&state_dir).load() {
        Ok(records) => records,
        Err(error) => {
            complain(error);
            return Exit::CouldNotCheck;
        }
    };
    let own: HashSet<(String, String)> = records
        .into_iter()
        .filter(|record| !record.operator && record.proxy().is_haproxy_at(&arguments.socket))
        .map(|record| (record.backend, record.server))
        .collect();
    let text = async {
        let mut connection = Connection::open(&arguments.socket, Limits::default()).await?;
        connection.state_file(|backend, server| own.contains(&(backend.to_owned(), server.to_owned()))).await
    };
    let written = match (text.await, &arguments.file) {
        (Ok(text), Some(file)) => server_state::replace(file, &text).map_err(|error| error.to_string()),
        (Ok(text), None) => {
            super::print(text.trim_end());
            Ok(())
        }
        (Err(error), _) => Err(error.to_string()),
    };
    match written {
        Ok(()) => Exit::Ok,
        Err(error) => {
            complain(error);
            Exit::CouldNotCheck
        }
    }
}
