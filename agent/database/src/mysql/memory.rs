//! What a session remembers of its server, and which source of open transactions the
//! operator trusts. Data only: `learn` asks the server.

use std::{
    collections::{HashMap, HashSet},
    net::SocketAddr,
    sync::Arc,
    time::Instant,
};

use serde::Serialize;

use super::{pace::TrxPace, wire::ResultSet};

/// The plugins that log in by IAM: that of RDS and Aurora, and PAM, which stand-ins use.
/// The same are named in `guard.sql`.
pub(super) const IAM_PLUGINS: [&str; 2] = ["AWSAuthenticationPlugin", "pam"];

/// What has to tell that a session is outside any transaction.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum OpenTransactions {
    /// The events of `performance_schema`, which show every one. Where they are switched
    /// off, every session is held.
    #[default]
    PerformanceSchema,
    /// `information_schema.innodb_trx` and a second of quiet, and the events where they
    /// are on. One that has touched no table yet does not show there: it may be cut.
    InnodbTrx,
    /// Both must say that there is none.
    Strict,
}

impl OpenTransactions {
    /// Whether the events must be on.
    pub(super) fn by_events(self) -> bool {
        matches!(self, Self::PerformanceSchema | Self::Strict)
    }

    /// Whether `innodb_trx` must have been read.
    pub(super) fn by_trx(self) -> bool {
        matches!(self, Self::InnodbTrx | Self::Strict)
    }
}

/// What a session remembers.
#[derive(Debug, Default)]
pub(super) struct Memory {
    pub(super) open_transactions: OpenTransactions,
    pub(super) facts: Option<(Arc<Facts>, Instant)>,
    /// The agents counted last, and when.
    pub(super) agents: Option<(u32, Instant)>,
    /// The connections with a transaction in `innodb_trx`, and when that was read.
    pub(super) touching: Option<(HashSet<u64>, Instant)>,
    /// When `innodb_trx` may be read.
    pub(super) trx: TrxPace,
    /// Where connections come from whose `HOST` is a name; it does not change.
    pub(super) addresses: HashMap<u64, SocketAddr>,
    /// What connections call themselves; it does not change.
    pub(super) applications: HashMap<u64, Arc<str>>,
}

/// What can be seen on a server.
#[derive(Clone, Debug, Default)]
pub(super) struct Facts {
    /// Who the agent is there.
    pub(super) own_user: String,
    /// The sessions of others (`PROCESS`).
    pub(super) process: bool,
    /// `performance_schema` may be read, whether it is on or not.
    pub(super) readable: bool,
    /// It is on, and may be read.
    pub(super) performance_schema: bool,
    /// It follows transactions.
    pub(super) events: bool,
    /// It shows locks of tables and users.
    pub(super) locks: bool,
    /// The end of a statement is timed.
    pub(super) statements: bool,
    /// It is reached by IPv4 only.
    pub(super) ipv4_only: bool,
    /// Names are not resolved: `HOST` always is an address.
    pub(super) skips_names: bool,
    /// The accounts by user, if they may be read.
    pub(super) accounts: Option<HashMap<Arc<str>, Account>>,
}

/// All accounts of one user name together. Which of them a session has used depends on
/// the rules for hosts; so what is not true of all is not taken for true.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) struct Account {
    /// Every one logs in by IAM.
    pub(super) iam: bool,
    /// One of them at least is a superuser.
    pub(super) superuser: bool,
}

impl Facts {
    /// The account of a user. One without a name may be anybody's.
    pub(super) fn account(&self, user: &str) -> Account {
        let nobody = Account { iam: false, superuser: false };
        let Some(accounts) = &self.accounts else { return nobody };
        match (accounts.get(user), accounts.get("")) {
            (Some(own), None) => *own,
            (Some(own), Some(anybody)) => merge(*own, *anybody),
            (None, _) => nobody,
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
    fn a_user_logs_in_by_iam_if_every_account_of_that_name_does() {
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
        assert!(!facts.account("App").iam, "names of users are told apart by case");
    }

    #[test]
    fn an_account_without_a_name_may_be_anybodys() {
        let facts = facts(&[("app", "pam", "N"), ("", "mysql_native_password", "N")]);
        assert!(!facts.account("app").iam);
    }

    #[test]
    fn nobody_logs_in_by_iam_where_accounts_may_not_be_read() {
        assert!(!Facts::default().account("app").iam);
    }

    #[test]
    fn the_guard_names_the_same_plugins() {
        let list = format!("IN ('{}')", IAM_PLUGINS.join("', '"));
        assert!(include_str!("guard.sql").contains(&list), "{list}");
    }
}
