//! What clients say, where engines want different words.

use crate::standin::Engine;

/// Makes the tables, if they are not there, as one who may make tables. Two loads on one
/// database at once must not meet in making them.
pub(super) fn tables(engine: Engine) -> &'static str {
    match engine {
        Engine::Postgresql => {
            "BEGIN;
            SELECT pg_advisory_xact_lock(hashtext('load tables'));
            CREATE TABLE IF NOT EXISTS load_counters (
                run bigint, client integer, done bigint NOT NULL, PRIMARY KEY (run, client)
            ) WITH (fillfactor = 50);
            CREATE TABLE IF NOT EXISTS load_rows (
                run bigint, client integer, number bigint, PRIMARY KEY (run, client, number)
            );
            GRANT SELECT, INSERT, UPDATE ON load_counters, load_rows TO PUBLIC;
            COMMIT"
        }
        Engine::Mariadb => {
            "CREATE TABLE IF NOT EXISTS load_counters (
                run bigint, client integer, done bigint NOT NULL, PRIMARY KEY (run, client)
            ) ENGINE = InnoDB;
            CREATE TABLE IF NOT EXISTS load_rows (
                run bigint, client integer, number bigint, PRIMARY KEY (run, client, number)
            ) ENGINE = InnoDB"
        }
    }
}

/// A client's row, which it counts its commits in.
pub(super) fn own_row(engine: Engine, run: i64, client: u32) -> String {
    match engine {
        Engine::Postgresql => {
            format!("INSERT INTO load_counters VALUES ({run}, {client}, 0) ON CONFLICT DO NOTHING")
        }
        Engine::Mariadb => format!("INSERT IGNORE INTO load_counters VALUES ({run}, {client}, 0)"),
    }
}

pub(super) fn begin(engine: Engine, writes: bool) -> &'static str {
    match (engine, writes) {
        (_, true) => "BEGIN",
        (Engine::Postgresql, false) => "BEGIN READ ONLY",
        (Engine::Mariadb, false) => "START TRANSACTION READ ONLY",
    }
}

/// Takes a lock of the session's own.
pub(super) fn user_lock(engine: Engine, client: u32) -> String {
    match engine {
        Engine::Postgresql => format!("SELECT pg_advisory_lock({client})"),
        Engine::Mariadb => format!("SELECT GET_LOCK('load {client}', 10)"),
    }
}

/// `client=done` of all who have committed, in one value.
pub(super) fn counters(engine: Engine, run: i64) -> String {
    let all = match engine {
        Engine::Postgresql => "string_agg(client || '=' || done, ' ')",
        Engine::Mariadb => "group_concat(client, '=', done SEPARATOR ' ')",
    };
    format!("SELECT {all} FROM load_counters WHERE run = {run} AND done > 0")
}

/// How many of these sessions of one's own user are there.
pub(super) fn count_sessions(engine: Engine, backends: &[u64]) -> String {
    let numbers: Vec<String> = backends.iter().map(ToString::to_string).collect();
    let numbers = numbers.join(", ");
    match engine {
        // A process id may be another's by now; not one of this user's that began before.
        Engine::Postgresql => format!(
            "SELECT count(*) FROM pg_stat_activity WHERE usename = current_user AND pid IN ({numbers})"
        ),
        // Who may not see those of others sees its own.
        Engine::Mariadb => {
            format!("SELECT count(*) FROM information_schema.processlist WHERE id IN ({numbers})")
        }
    }
}
