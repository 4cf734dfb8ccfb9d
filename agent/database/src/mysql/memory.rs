//! What a session remembers of its server, and which source of open transactions the operator
//! chose. Data only: `learn` queries the server.

use std::{
    collections::{HashMap, HashSet},
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use agent_core::peers::Marks;
use serde::Serialize;

use super::{pace::TrxPace, wire::ResultSet};

/// The plugins of IAM users: that of RDS and Aurora, and PAM, which the tests use.
/// `guard.sql` has the same list.
pub(super) const IAM_PLUGINS: [&str; 2] = ["AWSAuthenticationPlugin", "pam"];

/// The source that has to show that a session is outside any transaction.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum OpenTransactions {
    /// The events of `performance_schema`, which show every transaction. Where they are off,
    /// every session is held.
    #[default]
    PerformanceSchema,
    /// `information_schema.innodb_trx` and one second of idle time, and the events where they
    /// are on. A transaction that has touched no table does not appear there and may be cut.
    InnodbTrx,
    Strict,
}

impl OpenTransactions {
    /// Whether the events have to be on.
    pub(super) fn by_events(self) -> bool {
        matches!(self, Self::PerformanceSchema | Self::Strict)
    }

    /// Whether `innodb_trx` has to be read.
    pub(super) fn by_trx(self) -> bool {
        matches!(self, Self::InnodbTrx | Self::Strict)
    }
}

#[derive(Debug, Default)]
pub(super) struct Memory {
    pub(super) open_transactions: OpenTransactions,
    pub(super) facts: Option<(Arc<Facts>, Instant)>,
    /// The last count of agents, and when it was taken.
    pub(super) agents: Option<(u32, Instant)>,
    /// The locks that show this agent to others; `None` until the first are taken.
    pub(super) locks: Option<Locks>,
    /// Whether the server had a replication source when its status was last visible.
    pub(super) follows_source: Option<bool>,
    /// The connections in `innodb_trx`, and when it was read.
    pub(super) touching: Option<(HashSet<u64>, Instant)>,
    /// When `innodb_trx` may be read again.
    pub(super) trx: TrxPace,
    /// The time in its state by connection, and when it was read.
    pub(super) lasting: HashMap<u64, (Duration, Instant)>,
    /// Client addresses of connections whose `HOST` is a name. They do not change.
    pub(super) addresses: HashMap<u64, SocketAddr>,
    /// `program_name` by connection. It does not change.
    pub(super) applications: HashMap<u64, Arc<str>>,
}

/// The locks of `peers` that this session holds, by the server's last answer.
#[derive(Clone, Debug)]
pub(super) struct Locks {
    /// The agent's own number, if one was free.
    pub(super) number: Option<u32>,
    pub(super) permits: Vec<u32>,
    pub(super) own: Marks,
    /// So many numbers are read.
    pub(super) read: u32,
}

/// What the agent can see on a server.
#[derive(Clone, Debug, Default)]
pub(super) struct Facts {
    /// The agent's own user name.
    pub(super) own_user: String,
    /// Other users' sessions (`PROCESS`).
    pub(super) process: bool,
    /// `performance_schema` may be read, on or off.
    pub(super) readable: bool,
    /// It is on and may be read.
    pub(super) performance_schema: bool,
    /// Whether it records transactions.
    pub(super) events: bool,
    /// It shows table locks and user locks.
    pub(super) locks: bool,
    /// Whether it times statements.
    pub(super) statements: bool,
    /// The server listens on IPv4 only.
    pub(super) ipv4_only: bool,
    /// `skip_name_resolve`: `HOST` is always an address.
    pub(super) skips_names: bool,
    /// The accounts by user; `None` if they may not be read.
    pub(super) accounts: Option<HashMap<Arc<str>, Account>>,
}

/// All accounts of one user name. Which of them a session used depends on host patterns, so a
/// property counts only if all accounts have it.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) struct Account {
    /// All of them log in by IAM.
    pub(super) iam: bool,
    /// At least one is a superuser.
    pub(super) superuser: bool,
}

impl Facts {
    /// The account of a user. An account without a name matches any user.
    pub(super) fn account(&self, user: &str) -> Account {
        let unknown = Account { iam: false, superuser: false };
        let Some(accounts) = &self.accounts else { return unknown };
        match (accounts.get(user), accounts.get("")) {
            (Some(own), None) => *own,
            (Some(own), Some(anybody)) => merge(*own, *anybody),
            (None, _) => unknown,
        }
    }
}

fn merge(one: Account, other: Account) -> Account {
    Account { iam: one.iam && other.iam, superuser: one.superuser || other.superuser }
}

/// The accounts by user, from rows of name, plugin and `Super_priv`.
pub(super) fn accounts(result: &ResultSet) -> HashMap<Arc<str>, Account> {
    let mut accounts: HashMap<Arc<str>, Account> = HashMap::new();
    for row in &result.rows {
        let [user, plugin, superuser] = row.as_slice() else { continue };
        let account = Account {
            iam: plugin.as_deref().is_some_and(|plugin| IAM_PLUGINS.contains(&plugin)),
            superuser: superuser.as_deref() == Some("Y"),
        };
        accounts
            .entry(user.as_deref().unwrap_or_default().into())
            .and_modify(|known| *known = merge(*known, account))
            .or_insert(account);
    }
    accounts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(rows: &[(&str, &str, &str)]) -> Facts {
        let cell = |text: &str| Some(text.to_owned());
        let rows = rows.iter().map(|(user, plugin, power)| vec![cell(user), cell(plugin), cell(power)]);
        let result = ResultSet { rows: rows.collect(), ..ResultSet::default() };
        Facts { accounts: Some(accounts(&result)), ..Facts::default() }
    }

    #[test]
    fn a_user_is_an_iam_user_if_all_accounts_of_that_name_are() {
        let facts = facts(&[
            ("app", "AWSAuthenticationPlugin", "N"),
            ("mixed", "AWSAuthenticationPlugin", "N"),
            ("mixed", "caching_sha2_password", "N"),
            ("legacy", "mysql_native_password", "N"),
            ("boss", "pam", "Y"),
        ]);
        assert_eq!(facts.account("app"), Account { iam: true, superuser: false });
        assert_eq!(facts.account("mixed"), Account { iam: false, superuser: false });
        assert_eq!(facts.account("legacy"), Account { iam: false, superuser: false });
        assert_eq!(facts.account("boss"), Account { iam: true, superuser: true });
        assert!(!facts.account("nobody").iam);
        assert!(!facts.account("App").iam, "user names are case-sensitive");
    }

    #[test]
    fn an_account_without_a_name_matches_every_user() {
        let facts = facts(&[("app", "pam", "N"), ("", "mysql_native_password", "N")]);
        assert!(!facts.account("app").iam);
    }

    #[test]
    fn no_user_is_an_iam_user_if_accounts_may_not_be_read() {
        assert!(!Facts::default().account("app").iam);
    }

    #[test]
    fn the_guard_lists_the_same_plugins() {
        let list = format!("IN ('{}')", IAM_PLUGINS.join("', '"));
        assert!(include_str!("guard.sql").contains(&list), "{list}");
    }
}
