//! The server's counts of failed connections per client address.
//!
//! Two statements in one round trip: the settings and the host cache. Where the cache is not
//! visible, the global status counter is read instead, which is more expensive: the server sums
//! it over all connections.
//!
//! Measured on MariaDB 10.11: the count of an address is `SUM_CONNECT_ERRORS`; at
//! `max_connect_errors` the next connection is refused with 1129 and the count stays there.
//! A refused password is not counted. 127.0.0.1 is never in the cache. With
//! `skip_name_resolve` or a `host_cache_size` of 0 nothing is counted and no host is blocked;
//! without `performance_schema` the cache counts and blocks, and shows as empty.

use std::{collections::BTreeMap, net::IpAddr};

use agent_core::{
    Fault, FaultKind, Phase,
    health::{AddressErrors, ConnectErrors, Counted, host_block::Unseen},
};

use super::{classify, session::MySqlSession, wire::ResultSet};
use crate::dial::during;

/// The limit, whether a host cache exists and is visible, and the agent's own account.
const SETTINGS: &str = "SELECT @@global.max_connect_errors, @@global.skip_name_resolve, \
     @@global.host_cache_size, @@global.performance_schema, USER()";

/// The addresses with the most errors. A cache may hold 65,536 of them.
const HOST_CACHE: &str = "SELECT IP, HOST, SUM_CONNECT_ERRORS, COUNT_HOST_BLOCKED_ERRORS \
     FROM performance_schema.host_cache WHERE SUM_CONNECT_ERRORS > 0 \
     ORDER BY SUM_CONNECT_ERRORS DESC LIMIT 1000";

/// Since 10.5 MariaDB also counts those that ended before authentication, which excludes refused
/// passwords.
const ABORTED: &str =
    "SHOW GLOBAL STATUS WHERE Variable_name IN ('Aborted_connects', 'Aborted_connects_preauth')";

/// What the queries do, for the message of a fault.
const WHAT: &str = "reading the counts of failed connections";

/// Missing privilege on the table, on its database.
const DENIED: [u16; 2] = [1142, 1044];

impl MySqlSession {
    /// The failed connections that the server counts per client address.
    pub async fn connect_errors(&mut self) -> Result<ConnectErrors, Fault> {
        let answered = self.ask(WHAT, &format!("{SETTINGS};{HOST_CACHE}")).await?;
        let denied = match &answered.refused {
            Some(error) if answered.results.len() == 1 && DENIED.contains(&error.number) => true,
            Some(error) => return Err(during(WHAT, classify::refused(Phase::Query, error))),
            None => false,
        };
        let mut results = answered.results.into_iter();
        let settings = results.next().unwrap_or_default();
        let limit = number(&settings, 0, 0)?;
        if flag(&settings, 1)? || number(&settings, 0, 2)? == 0 {
            return Ok(ConnectErrors { limit, counted: Counted::Never });
        }
        let why = if !flag(&settings, 3)? {
            Unseen::PerformanceSchemaOff
        } else if denied {
            Unseen::NotGranted
        } else {
            let user = settings.cell(0, 4).unwrap_or_default();
            let counted = by_address(user, &results.next().unwrap_or_default())?;
            return Ok(ConnectErrors { limit, counted });
        };
        let results = self.query(WHAT, ABORTED).await?;
        let aborted = aborted(results.first().unwrap_or(&ResultSet::default()))?;
        Ok(ConnectErrors { limit, counted: Counted::Together { aborted, why } })
    }
}

/// The counts, and which of them is the agent's own address. `user` has the agent's host, as an
/// address or as a resolved name.
fn by_address(user: &str, cache: &ResultSet) -> Result<Counted, Fault> {
    let host = user.rsplit_once('@').map_or("", |(_, host)| host);
    let mut own = address(host);
    let mut addresses = BTreeMap::new();
    for row in 0..cache.rows.len() {
        let Some(ip) = cache.cell(row, 0).and_then(address) else { continue };
        if own.is_none() && cache.cell(row, 1).is_some_and(|name| name.eq_ignore_ascii_case(host)) {
            own = Some(ip);
        }
        let errors = AddressErrors { errors: number(cache, row, 2)?, refused: number(cache, row, 3)? };
        addresses.insert(ip, errors);
    }
    Ok(Counted::ByAddress { own, addresses })
}

/// IPv4-mapped IPv6 addresses become IPv4.
fn address(text: &str) -> Option<IpAddr> {
    text.parse::<IpAddr>().ok().map(|ip| ip.to_canonical())
}

/// The smaller of the two counters, where there are both.
fn aborted(status: &ResultSet) -> Result<u64, Fault> {
    let mut least = None;
    for row in 0..status.rows.len() {
        let value = number(status, row, 1)?;
        least = Some(least.map_or(value, |least: u64| least.min(value)));
    }
    least.ok_or_else(|| strange("no count of aborted connections"))
}

fn number(result: &ResultSet, row: usize, column: usize) -> Result<u64, Fault> {
    let cell = result.cell(row, column);
    cell.and_then(|cell| cell.parse().ok())
        .ok_or_else(|| strange(&format!("{cell:?} where a number was expected")))
}

fn flag(settings: &ResultSet, column: usize) -> Result<bool, Fault> {
    Ok(number(settings, 0, column)? != 0)
}

fn strange(what: &str) -> Fault {
    Fault::new(Phase::Query, FaultKind::Protocol, format!("counts of failed connections: {what}"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn result(rows: &[&[Option<&str>]]) -> ResultSet {
        let rows = rows.iter().map(|row| row.iter().map(|cell| cell.map(str::to_owned)).collect());
        ResultSet { rows: rows.collect(), ..ResultSet::default() }
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn each_address_has_its_count_and_one_is_the_agents() {
        let cache = result(&[
            &[Some("127.0.0.2"), None, Some("5"), Some("4")],
            &[Some("::ffff:10.0.1.5"), Some("proxy-1.internal"), Some("3"), Some("0")],
        ]);
        let counted = |user| by_address(user, &cache).unwrap();
        let addresses = BTreeMap::from([
            (ip("127.0.0.2"), AddressErrors { errors: 5, refused: 4 }),
            (ip("10.0.1.5"), AddressErrors { errors: 3, refused: 0 }),
        ]);
        let own = |own: Option<&str>| Counted::ByAddress { own: own.map(ip), addresses: addresses.clone() };
        assert_eq!(counted("lb_agent@127.0.0.2"), own(Some("127.0.0.2")));
        assert_eq!(counted("lb_agent@PROXY-1.internal"), own(Some("10.0.1.5")));
        assert_eq!(counted("odd@name@fd00::2"), own(Some("fd00::2")), "an address without errors");
        assert_eq!(counted("lb_agent@localhost"), own(None));
    }

    #[test]
    fn of_two_counters_the_smaller_one_counts() {
        let rows: [&[Option<&str>]; 2] =
            [&[Some("Aborted_connects"), Some("34")], &[Some("Aborted_connects_preauth"), Some("25")]];
        assert_eq!(aborted(&result(&rows)), Ok(25));
        assert_eq!(aborted(&result(&rows[..1])), Ok(34), "MySQL has the one only");
        assert!(aborted(&result(&[])).is_err());
    }

    proptest! {
        /// Arbitrary tables never give a count that they do not contain.
        #[test]
        fn arbitrary_tables_are_read_or_refused(
            user in ".{0,40}",
            rows in prop::collection::vec(prop::collection::vec(prop::option::of("[0-9a-f.:-]{0,20}"), 0..6), 0..6),
        ) {
            let table = ResultSet { rows, ..ResultSet::default() };
            if let Ok(Counted::ByAddress { addresses, .. }) = by_address(&user, &table) {
                prop_assert!(addresses.len() <= table.rows.len());
            }
            if let Ok(sum) = aborted(&table) {
                let said = (0..table.rows.len()).any(|row| table.cell(row, 1).and_then(|cell| cell.parse().ok()) == Some(sum));
                prop_assert!(said);
            }
        }
    }
}
