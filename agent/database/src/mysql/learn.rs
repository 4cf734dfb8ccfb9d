//! Queries what a session has to know about its server: settings, privileges, accounts.
//!
//! Repeated every few seconds, one statement each, so that a missing privilege or table affects
//! only its own result.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use agent_core::Fault;

use super::{
    memory::{Facts, accounts},
    session::MySqlSession,
    types::{is_ipv4_only, is_on},
};

/// How long an answer about settings and accounts is used: a grant or a switch that an
/// operator changes takes effect within this time.
const FACTS_FOR: Duration = Duration::from_secs(5);

impl MySqlSession {
    /// The facts about this server, at most [`FACTS_FOR`] old.
    pub(super) async fn facts(&mut self) -> Result<Arc<Facts>, Fault> {
        if let Some((facts, at)) = &self.memory.facts
            && at.elapsed() < FACTS_FOR
        {
            return Ok(Arc::clone(facts));
        }
        let facts = Arc::new(self.learn().await?);
        self.memory.facts = Some((Arc::clone(&facts), Instant::now()));
        Ok(facts)
    }

    /// Discards the facts, after a statement failed that they had allowed.
    pub(super) fn forget_facts(&mut self) {
        self.memory.facts = None;
    }

    async fn learn(&mut self) -> Result<Facts, Fault> {
        let settings = self
            .query("reading the server's settings", SETTINGS)
            .await?
            .into_iter()
            .next()
            .unwrap_or_default();
        let process = self.if_allowed("testing for PROCESS", PROCESS).await?.is_some();
        let mut facts = Facts {
            own_user: settings.cell(0, 3).unwrap_or_default().to_owned(),
            process,
            ipv4_only: settings.cell(0, 1).is_some_and(is_ipv4_only),
            skips_names: is_on(settings.cell(0, 2)),
            ..Facts::default()
        };
        if let Some(switches) =
            self.if_allowed("reading the settings of performance_schema", SWITCHES).await?
        {
            facts.readable = true;
            facts.performance_schema = is_on(settings.cell(0, 0));
            let switch = |column| facts.performance_schema && is_on(switches.cell(0, column));
            (facts.events, facts.locks, facts.statements) = (switch(0), switch(1), switch(2));
        }
        facts.accounts = self.if_allowed("reading the accounts", ACCOUNTS).await?.as_ref().map(accounts);
        Ok(facts)
    }
}

const SETTINGS: &str = "SELECT @@global.performance_schema, @@global.bind_address, @@global.skip_name_resolve, \
            SUBSTRING_INDEX(USER(), '@', 1)";

/// Refused without `PROCESS`, however it was granted. The table is small.
const PROCESS: &str = "SELECT 1 FROM information_schema.INNODB_CMP LIMIT 1";

/// Whether transactions and locks are instrumented, and statements are timed.
const SWITCHES: &str = "\
    SELECT c.watching AND c.transactions AND i.transactions, \
           c.watching AND i.locks, \
           c.watching AND c.statements \
      FROM (SELECT SUM(NAME IN ('global_instrumentation', 'thread_instrumentation') AND ENABLED = 'YES') = 2 \
                     AS watching, \
                   MAX(NAME = 'events_transactions_current' AND ENABLED = 'YES') AS transactions, \
                   MAX(NAME = 'events_statements_current' AND ENABLED = 'YES') AS statements \
              FROM performance_schema.setup_consumers) AS c \
     CROSS JOIN (SELECT COALESCE(MAX(NAME = 'transaction' AND ENABLED = 'YES'), 0) AS transactions, \
                        COALESCE(MAX(NAME = 'wait/lock/metadata/sql/mdl' AND ENABLED = 'YES'), 0) AS locks \
                   FROM performance_schema.setup_instruments \
                  WHERE NAME IN ('transaction', 'wait/lock/metadata/sql/mdl')) AS i";

/// Column privileges on these three are enough.
const ACCOUNTS: &str = "SELECT User, plugin, Super_priv FROM mysql.user";
