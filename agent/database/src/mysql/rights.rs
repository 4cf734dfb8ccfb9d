//! The agent's privileges on a server, and what it can see there.
//!
//! `PROCESS` is tested by using it, so it counts however it was granted. The privilege to kill
//! cannot be tested: it is read from `SHOW GRANTS`, which in MySQL omits privileges that come
//! from a role, so it has to be granted to the user itself. A procedure that the user may not
//! execute is not visible.

use agent_core::Fault;

use super::{
    memory::{Facts, IAM_PLUGINS, OpenTransactions},
    role::replication_status,
    session::MySqlSession,
    types::is_on,
    wire::ResultSet,
};
use crate::engine::{FunctionState, Lacks, Missing, Rights, Sight, TransactionSight};

/// The start of the comment on the procedures of `deploy/mysql`. Version 1 compared names without case
/// on MariaDB 11.5 and later, so it is not used any more.
pub(super) const PROCEDURE_VERSION: &str = "rds-lb-agent procedure, version 2.";

/// What the queries do, for the message of a fault.
const WHAT: &str = "reading the agent's privileges";

const GRANTS: &str = "SHOW GRANTS";

const ROUTINES: &str = "\
    SELECT ROUTINE_SCHEMA, ROUTINE_NAME, ROUTINE_COMMENT FROM information_schema.ROUTINES \
     WHERE ROUTINE_SCHEMA = 'rds_lb_agent' AND ROUTINE_NAME IN ('retire', 'catch') \
        OR ROUTINE_SCHEMA = 'mysql' AND ROUTINE_NAME = 'rds_kill'";

const OWN_USER: &str = "SELECT SUBSTRING_INDEX(USER(), '@', 1)";

pub(super) async fn rights(session: &mut MySqlSession) -> Result<Rights, Fault> {
    // An operator may have changed something since the last reading.
    session.forget_facts();
    let facts = session.facts().await?;
    let mode = session.memory.open_transactions;
    let grants = session.if_allowed(WHAT, GRANTS).await?.unwrap_or_default();
    let routines = session.if_allowed(WHAT, ROUTINES).await?.unwrap_or_default();
    // Aurora has its own status, which needs no privilege.
    let replication = session.server().aurora.is_some()
        || session.if_allowed(WHAT, replication_status(session.server())).await?.is_some();
    let plugins = format!(
        "SELECT COUNT(*) > 0 FROM information_schema.PLUGINS \
          WHERE PLUGIN_STATUS = 'ACTIVE' AND PLUGIN_NAME IN ('{}')",
        IAM_PLUGINS.join("', '")
    );
    let plugins = session.if_allowed(WHAT, &plugins).await?.unwrap_or_default();
    let own_user = session.if_allowed(WHAT, OWN_USER).await?.unwrap_or_default();
    let account = facts.account(own_user.cell(0, 0).unwrap_or_default());
    let privileges = Privileges::read(&grants);
    let mut rights = Rights {
        version: session.server().to_string(),
        version_number: session.server().number,
        sees_all_activity: facts.process,
        sight: sight(&facts, mode),
        may_signal: privileges.kill,
        function: procedure(&routines, "retire"),
        catch_function: procedure(&routines, "catch"),
        platform: comment(&routines, "mysql", "rds_kill").is_some(),
        superuser: privileges.superuser || account.superuser,
        iam_known: is_on(plugins.cell(0, 0)),
        iam_user: account.iam,
        missing: Vec::new(),
    };
    rights.missing = missing(&rights, &facts, mode, replication);
    Ok(rights)
}

fn sight(facts: &Facts, mode: OpenTransactions) -> Sight {
    let hidden = (mode.by_events() && !facts.events) || (mode.by_trx() && !(facts.process && facts.readable));
    let open_transactions = match (hidden, facts.events) {
        (true, _) => TransactionSight::Nothing,
        (false, true) => TransactionSight::All,
        (false, false) => TransactionSight::Touching,
    };
    Sight { open_transactions, table_locks: facts.locks, user_locks: facts.locks }
}

/// What an operator can fix.
fn missing(rights: &Rights, facts: &Facts, mode: OpenTransactions, replication: bool) -> Vec<Missing> {
    let mut missing = Vec::new();
    let mut add = |when: bool, lacks: Lacks, advice: &'static str| {
        if when {
            missing.push(Missing { lacks, advice });
        }
    };
    add(
        !facts.process,
        Lacks::Activity,
        "GRANT PROCESS ON *.* TO the agent's user; without it the sessions of others cannot be seen",
    );
    add(
        !facts.readable,
        Lacks::Transactions,
        "GRANT SELECT ON performance_schema.* TO the agent's user; it is needed also where performance_schema is off",
    );
    add(
        facts.readable && !facts.performance_schema && mode.by_events(),
        Lacks::Transactions,
        "performance_schema is off, so every session is held: set performance_schema=1 in the parameter group \
         and restart, or accept `open_transactions: innodb_trx`, which cannot see a transaction that has \
         touched no table yet",
    );
    add(
        facts.performance_schema && !facts.events && mode.by_events(),
        Lacks::Transactions,
        "performance_schema does not record transactions, so every session is held: turn on the instrument \
         'transaction' and the consumer 'events_transactions_current' (deploy/mysql/README.md)",
    );
    add(
        facts.readable && !facts.events && mode == OpenTransactions::InnodbTrx,
        Lacks::Transactions,
        "`open_transactions: innodb_trx` is set: a transaction that has touched no table yet cannot be \
         seen and may be cut",
    );
    add(
        facts.readable && !facts.locks,
        Lacks::Locks,
        "LOCK TABLES and GET_LOCK cannot be seen, so sessions are closed despite them: turn on the \
         instrument 'wait/lock/metadata/sql/mdl' (deploy/mysql/README.md)",
    );
    add(
        facts.accounts.is_none(),
        Lacks::Users,
        "GRANT SELECT (User, Host, plugin, Super_priv) ON mysql.user TO the agent's user; without it no \
         user is known to log in by IAM",
    );
    add(
        !replication,
        Lacks::Replication,
        "GRANT REPLICATION CLIENT (MariaDB: REPLICA MONITOR) ON *.* TO the agent's user; without it the agent \
         does not see the lag of a replica, nor whether a writable server follows a source",
    );
    add(
        !facts.skips_names && !facts.performance_schema,
        Lacks::Addresses,
        "the server resolves addresses to names, and sessions that show a name are held: set skip_name_resolve=1 \
         (or turn on performance_schema) and restart",
    );
    add(
        rights.method().is_none(),
        Lacks::Closing,
        "install deploy/mysql/retire.sql, or GRANT EXECUTE ON PROCEDURE mysql.rds_kill (RDS) or CONNECTION \
         ADMIN TO the agent's user",
    );
    missing
}

/// The global privileges that the agent needs to know.
#[derive(Debug, PartialEq, Eq)]
struct Privileges {
    kill: bool,
    superuser: bool,
}

impl Privileges {
    /// From lines such as ``GRANT PROCESS, CONNECTION ADMIN ON *.* TO `lb_agent`@`%` ``.
    fn read(grants: &ResultSet) -> Self {
        let lines = grants.rows.iter().filter_map(|row| row.first()?.as_deref());
        let global: Vec<&str> = lines
            .filter_map(|line| line.strip_prefix("GRANT ")?.split_once(" ON *.* TO "))
            // MySQL lists its dynamic privileges without a space after the comma.
            .flat_map(|(privileges, _)| privileges.split(',').map(str::trim))
            .collect();
        let has = |names: &[&str]| global.iter().any(|privilege| names.contains(privilege));
        let superuser = has(&["ALL PRIVILEGES", "SUPER"]);
        Self { kill: superuser || has(&["CONNECTION ADMIN", "CONNECTION_ADMIN"]), superuser }
    }
}

fn comment<'a>(routines: &'a ResultSet, schema: &str, name: &str) -> Option<&'a str> {
    let found = (0..routines.rows.len())
        .find(|&row| routines.cell(row, 0) == Some(schema) && routines.cell(row, 1) == Some(name))?;
    Some(routines.cell(found, 2).unwrap_or_default())
}

fn procedure(routines: &ResultSet, name: &str) -> FunctionState {
    match comment(routines, "rds_lb_agent", name) {
        None => FunctionState::Missing,
        Some(comment) if comment.starts_with(PROCEDURE_VERSION) => FunctionState::Ready,
        Some(_) => FunctionState::OtherVersion,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(rows: &[&[&str]]) -> ResultSet {
        let rows = rows.iter().map(|row| row.iter().map(|cell| Some((*cell).to_owned())).collect());
        ResultSet { rows: rows.collect(), ..ResultSet::default() }
    }

    #[test]
    fn the_privilege_to_kill_is_read_from_global_grants_only() {
        let may = |lines: &[&[&str]]| Privileges::read(&table(lines));
        let plain = may(&[&["GRANT PROCESS, REPLICA MONITOR ON *.* TO `lb_agent`@`%` REQUIRE SSL"]]);
        assert_eq!(plain, Privileges { kill: false, superuser: false });
        for line in [
            "GRANT PROCESS, CONNECTION ADMIN ON *.* TO `lb_agent`@`%`",
            "GRANT BACKUP_ADMIN,CONNECTION_ADMIN,XA_RECOVER_ADMIN ON *.* TO `lb_agent`@`%`",
        ] {
            assert_eq!(may(&[&[line]]), Privileges { kill: true, superuser: false }, "{line}");
        }
        let all = may(&[&["GRANT USAGE ON *.* TO `a`@`%`"], &["GRANT ALL PRIVILEGES ON *.* TO `a`@`%`"]]);
        assert_eq!(all, Privileges { kill: true, superuser: true });
        assert!(!may(&[&["GRANT ALL PRIVILEGES ON `orders`.* TO `a`@`%`"]]).kill);
    }

    #[test]
    fn a_procedure_is_ready_only_if_visible_and_of_this_version() {
        let ours = "rds-lb-agent procedure, version 2. Closes one session.";
        let routines = table(&[&["rds_lb_agent", "retire", ours], &["rds_lb_agent", "catch", "version 12."]]);
        assert_eq!(procedure(&routines, "retire"), FunctionState::Ready);
        assert_eq!(procedure(&routines, "catch"), FunctionState::OtherVersion);
        assert_eq!(procedure(&ResultSet::default(), "retire"), FunctionState::Missing);
        assert_eq!(comment(&routines, "mysql", "rds_kill"), None);
    }

    #[test]
    fn the_visibility_of_transactions_depends_on_the_chosen_source() {
        use OpenTransactions::{InnodbTrx, PerformanceSchema, Strict};
        use TransactionSight::{All, Nothing, Touching};
        let on = Facts {
            process: true,
            readable: true,
            performance_schema: true,
            events: true,
            ..Facts::default()
        };
        let off = Facts { process: true, readable: true, ..Facts::default() };
        for (mode, with, without) in
            [(PerformanceSchema, All, Nothing), (InnodbTrx, All, Touching), (Strict, All, Nothing)]
        {
            assert_eq!(sight(&on, mode).open_transactions, with);
            assert_eq!(sight(&off, mode).open_transactions, without);
        }
        let blind = Facts { process: false, ..on };
        assert_eq!(sight(&blind, PerformanceSchema).open_transactions, All);
        assert_eq!(sight(&blind, Strict).open_transactions, Nothing);
    }
}
