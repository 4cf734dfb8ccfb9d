//! Facts about the agent's user and its way to the server, for the doctor.

use agent_core::{Fault, FaultKind, Phase};

use super::session::MySqlSession;
use crate::engine::Circumstances;

const WHAT: &str = "reading the settings of the agent's user";

/// In the session, `max_user_connections` is the user's own limit where it has one; 0 is no limit. No user has
/// settings of its own.
const CIRCUMSTANCES: &str = "SELECT UNIX_TIMESTAMP(NOW(6)), USER(), @@session.max_user_connections";

pub(super) async fn circumstances(session: &mut MySqlSession) -> Result<Circumstances, Fault> {
    let results = session.query(WHAT, CIRCUMSTANCES).await?;
    let cell = |column| results.first().and_then(|result| result.cell(0, column)).unwrap_or_default();
    let strange = || Fault::new(Phase::Query, FaultKind::Protocol, format!("{WHAT}: not a number"));
    let host = cell(1).rsplit_once('@').map_or("", |(_, host)| host);
    let limit: i64 = cell(2).parse().map_err(|_| strange())?;
    Ok(Circumstances {
        clock_s: cell(0).parse().map_err(|_| strange())?,
        seen_as: host.parse().ok(),
        connection_limit: (limit > 0).then_some(limit),
        ..Circumstances::default()
    })
}
