//! Facts about the agent's user and its way to the server, for the doctor.

use agent_core::Fault;

use super::session::{PostgresqlSession, column, only_row};
use crate::engine::Circumstances;

/// `pg_use_reserved_connections` and the setting exist from PostgreSQL 16 on.
const CIRCUMSTANCES: &str = "\
    SELECT extract(epoch FROM clock_timestamp())::float8, \
           host(inet_client_addr()), \
           me.rolconnlimit::int8, \
           coalesce((SELECT array_agg(setting) FROM pg_db_role_setting AS s, unnest(s.setconfig) AS setting \
                      WHERE s.setrole = me.oid AND s.setdatabase IN (0, d.oid)), '{}'), \
           coalesce((SELECT setting::int8 FROM pg_settings WHERE name = 'reserved_connections'), 0) > 0 \
             AND NOT coalesce((SELECT pg_has_role(me.oid, r.oid, 'USAGE') FROM pg_roles AS r \
                                WHERE r.rolname = 'pg_use_reserved_connections'), true) \
      FROM pg_roles AS me, pg_database AS d \
     WHERE me.rolname = current_user AND d.datname = current_database()";

pub(super) async fn circumstances(session: &mut PostgresqlSession) -> Result<Circumstances, Fault> {
    let rows = session.rows("reading the settings of the agent's user", CIRCUMSTANCES, &[]).await?;
    let row = only_row(&rows)?;
    let seen_as: Option<&str> = column(row, 1)?;
    let limit: i64 = column(row, 2)?;
    Ok(Circumstances {
        clock_s: column(row, 0)?,
        seen_as: seen_as.and_then(|address| address.parse().ok()),
        connection_limit: (limit >= 0).then_some(limit),
        defaults: column(row, 3)?,
        reserved_for_others: column(row, 4)?,
    })
}
