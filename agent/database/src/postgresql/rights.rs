//! The agent's privileges on a server.

use agent_core::Fault;

use super::session::{PostgresqlSession, column, only_row};
use crate::engine::{FunctionState, Lacks, Missing, Rights, Sight, TransactionSight};

/// What the comment on a function of `deploy/postgresql` begins with.
pub(super) const FUNCTION_VERSION: &str = "rds-lb-agent function, version 1.";

/// Looked up in the catalog: naming a function that does not exist, or in a schema without
/// USAGE, would be an error.
const RIGHTS: &str = "\
    SELECT current_setting('server_version'), \
           current_setting('server_version_num')::int4, \
           pg_has_role(current_user, 'pg_read_all_stats', 'USAGE'), \
           pg_has_role(current_user, 'pg_signal_backend', 'USAGE'), \
           me.rolsuper, \
           iam.oid IS NOT NULL, \
           coalesce(NOT me.rolsuper AND pg_has_role(me.oid, iam.oid, 'MEMBER'), false), \
           retire.may, retire.version, \
           catch.may, catch.version \
      FROM pg_roles AS me \
      LEFT JOIN pg_roles AS iam ON iam.rolname = 'rds_iam' \
      LEFT JOIN LATERAL ( \
           SELECT has_schema_privilege(n.oid, 'USAGE') AND has_function_privilege(p.oid, 'EXECUTE') AS may, \
                  obj_description(p.oid, 'pg_proc') AS version \
             FROM pg_proc AS p JOIN pg_namespace AS n ON n.oid = p.pronamespace \
            WHERE n.nspname = 'rds_lb_agent' AND p.proname = 'retire' \
              AND oidvectortypes(p.proargtypes) = \
                  'integer, timestamp with time zone, inet, integer, name, bigint') AS retire ON true \
      LEFT JOIN LATERAL ( \
           SELECT has_schema_privilege(n.oid, 'USAGE') AND has_function_privilege(p.oid, 'EXECUTE') AS may, \
                  obj_description(p.oid, 'pg_proc') AS version \
             FROM pg_proc AS p JOIN pg_namespace AS n ON n.oid = p.pronamespace \
            WHERE n.nspname = 'rds_lb_agent' AND p.proname = 'catch' \
              AND oidvectortypes(p.proargtypes) = \
                  'integer, timestamp with time zone, inet, integer, name') AS catch ON true \
     WHERE me.rolname = current_user";

pub(super) async fn rights(session: &mut PostgresqlSession) -> Result<Rights, Fault> {
    let rows = session.rows("reading the agent's privileges", RIGHTS, &[]).await?;
    let row = only_row(&rows)?;
    let mut rights = Rights {
        version: column(row, 0)?,
        version_number: u32::try_from(column::<i32>(row, 1)?).unwrap_or(0),
        sees_all_activity: column(row, 2)?,
        // PostgreSQL locks tables only inside transactions.
        sight: Sight { open_transactions: TransactionSight::All, table_locks: true, user_locks: true },
        may_signal: column(row, 3)?,
        superuser: column(row, 4)?,
        iam_known: column(row, 5)?,
        iam_user: column(row, 6)?,
        function: function_state(column(row, 7)?, column(row, 8)?),
        catch_function: function_state(column(row, 9)?, column(row, 10)?),
        platform: false,
        missing: Vec::new(),
    };
    rights.missing = missing(&rights);
    Ok(rights)
}

fn missing(rights: &Rights) -> Vec<Missing> {
    let mut missing = Vec::new();
    if !rights.sees_all_activity {
        let advice = "GRANT pg_monitor TO the agent's user; without it no session can be seen to be idle";
        missing.push(Missing { lacks: Lacks::Activity, advice });
    }
    if rights.method().is_none() {
        let advice = "install deploy/postgresql/retire.sql, or GRANT pg_signal_backend TO the agent's user";
        missing.push(Missing { lacks: Lacks::Closing, advice });
    }
    missing
}

fn function_state(may: Option<bool>, version: Option<&str>) -> FunctionState {
    match (may, version) {
        (None, _) => FunctionState::Missing,
        (_, version) if !version.is_some_and(|version| version.starts_with(FUNCTION_VERSION)) => {
            FunctionState::OtherVersion
        }
        (Some(false), _) => FunctionState::NotExecutable,
        (Some(true), _) => FunctionState::Ready,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_function_is_ready_only_if_installed_in_this_version_and_executable() {
        let ours = Some("rds-lb-agent function, version 1. Closes one session.");
        assert_eq!(function_state(None, None), FunctionState::Missing);
        assert_eq!(function_state(Some(true), None), FunctionState::OtherVersion);
        assert_eq!(function_state(Some(true), Some("version 12.")), FunctionState::OtherVersion);
        assert_eq!(function_state(Some(false), ours), FunctionState::NotExecutable);
        assert_eq!(function_state(Some(true), ours), FunctionState::Ready);
    }
}
