//! Brings up a server that is DOWN by the agent's answers, with nothing but its record.

use haproxy::{
    Address,
    runtime::{Check, Connection, Limits, Operational, RuntimeError, ServerState},
};

use crate::state::downs::DownRecord;

/// What was found when a server was to be lifted.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Lifted {
    /// The agent's health is up again. HAProxy's own check or maintenance may still keep it DOWN.
    Up,
    /// It is not DOWN, or HAProxy does not have it.
    Nothing,
    /// It stays DOWN for its role.
    Stays,
}

/// Lifts the server of one record, unless it is down for its role.
///
/// # Errors
/// HAProxy cannot be reached, refuses, or still shows the server DOWN.
pub async fn lift(record: &DownRecord) -> Result<Lifted, String> {
    let address = record.socket.parse::<Address>()?;
    at(&address, record).await.map_err(|error| error.to_string())
}

async fn at(address: &Address, record: &DownRecord) -> Result<Lifted, RuntimeError> {
    let DownRecord { backend, server, by_role, .. } = record;
    let mut connection = Connection::open(address, Limits::default()).await?;
    match row(&mut connection, record).await? {
        Some(state) if state.operational == Operational::Stopped => {}
        _ => return Ok(Lifted::Nothing),
    }
    if *by_role {
        return Ok(Lifted::Stays);
    }
    connection.set_agent(backend, server, true).await?;
    let state = row(&mut connection, record).await?;
    let stopped = |state: &ServerState| {
        state.operational == Operational::Stopped && state.check != Check::Enabled && state.admin == 0
    };
    if state.as_ref().is_some_and(stopped) {
        return Err(RuntimeError::Refused {
            peer: address.clone(),
            command: format!("set server {backend}/{server} agent up"),
            answer: "HAProxy still shows it DOWN".into(),
        });
    }
    Ok(Lifted::Up)
}

async fn row(connection: &mut Connection, record: &DownRecord) -> Result<Option<ServerState>, RuntimeError> {
    // The whole table: the backend may be gone as well.
    let states = connection.servers_state(None).await?;
    Ok(states.into_iter().find(|state| state.backend == record.backend && state.server == record.server))
}
