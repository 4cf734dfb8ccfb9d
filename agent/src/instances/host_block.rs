//! Host-block protection for one MySQL or MariaDB instance: reads the connect errors that the server
//! counts for the addresses of the proxy, and resets them by a login before they reach
//! `max_connect_errors`.
//!
//! The agent runs beside the proxy, so its own logins usually come from the proxy's address. If the proxy
//! uses several addresses (`source`), the agent logs in from the one that is affected. The connection is
//! kept open because it survives a block, so the end of a block is seen too.
//!
//! Not here: when a login is due (`agent_core::health::host_block`), and the login budget (`door`).

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, UdpSocket},
    sync::Arc,
    time::Duration,
};

use agent_core::{
    Fault, FaultKind,
    health::{
        ConnectErrors, Counted, HostBlockGuard,
        host_block::{News, Reset, Way},
    },
};
use agent_database::Session;
use tokio::time::Instant;

use super::door::Door;
use crate::events::{
    ConnectErrorsHidden, ConnectErrorsSeen, ConnectErrorsUnknown, Episodes, Event, HostBlockNear,
    HostBlockReset, HostBlocked, HostResetFailed, HostUnblocked,
};
use crate::shared::Backoff;

/// For so long an address is taken for one of this host's, or not.
const LOCAL: Duration = Duration::from_secs(60);

/// Runs until it is dropped, or ends if this kind of server does not block addresses.
pub async fn run(door: Arc<Door>) {
    let mut backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(30));
    let mut watch = Watch::new(&door);
    loop {
        let login = door.login().await;
        watch.logged_in(login.as_ref().err());
        if let Ok(session) = login {
            let began = Instant::now();
            let Some(fault) = watch.follow(session).await else { return };
            tracing::debug!(instance = %door.instance(), %fault, "host-block connection lost");
            // A connection that is lost soon and repeatedly must not use up the login budget.
            if began.elapsed() >= LOCAL {
                backoff.reset();
            }
        }
        tokio::time::sleep(backoff.wait()).await;
    }
}

struct Watch<'a> {
    door: &'a Door,
    guard: HostBlockGuard,
    /// Failures that were logged.
    reported: Episodes,
    /// Addresses that have a metric series.
    shown: BTreeSet<IpAddr>,
    /// Whether an address belongs to this host, and when that was checked first.
    local: (BTreeMap<IpAddr, bool>, Instant),
}

impl<'a> Watch<'a> {
    fn new(door: &'a Door) -> Self {
        Self {
            door,
            guard: HostBlockGuard::default(),
            reported: Episodes::default(),
            shown: BTreeSet::new(),
            local: (BTreeMap::new(), Instant::now()),
        }
    }

    /// Runs until the connection is lost. `None` if this server does not count connect errors.
    async fn follow(&mut self, mut session: Box<dyn Session>) -> Option<Fault> {
        loop {
            let seen = match session.connect_errors().await {
                Ok(Some(seen)) => seen,
                Ok(None) => {
                    session.close().await;
                    return None;
                }
                // A query that was refused or not understood may work on the next connection.
                Err(fault) => {
                    if session.fault().is_none() {
                        let news =
                            self.reported.begins("unknown", &format!("{:?} {:?}", fault.kind, fault.code));
                        let instance = self.door.instance();
                        let metrics = &self.door.shared.metrics;
                        ConnectErrorsUnknown { instance, fault: &fault, news }.emit(metrics);
                        session.close().await;
                    }
                    return Some(fault);
                }
            };
            self.reported.ends("unknown");
            // Also if blocking is disabled, because that may change.
            self.door.set_limit(seen.limit);
            let ours = self.ours(&seen.counted);
            let look = self.guard.look(self.door.shared.clock.now(), &seen, &ours);
            self.report(&seen, look.news);
            match look.reset {
                // The next query, made at once, shows the effect.
                Some(reset) => self.reset(reset).await,
                None => tokio::time::sleep(look.next).await,
            }
        }
    }

    /// The relevant addresses: that of the agent's connection, others of this host, and those that the
    /// proxies connect from.
    fn ours(&mut self, counted: &Counted) -> BTreeMap<IpAddr, Way> {
        let Counted::ByAddress { own, addresses } = counted else { return BTreeMap::new() };
        if self.local.1.elapsed() >= LOCAL {
            self.local = (BTreeMap::new(), Instant::now());
        }
        let snapshot = self.door.shared.snapshot.borrow();
        let outgoing = snapshot.watch.outgoing.get(self.door.instance());
        let mut ours: BTreeMap<IpAddr, Way> = own.iter().map(|own| (*own, Way::Own)).collect();
        for address in addresses.keys().filter(|address| Some(**address) != *own) {
            let local = &mut self.local.0;
            if *local.entry(*address).or_insert_with(|| is_of_this_host(*address)) {
                ours.insert(*address, Way::ThisHost);
            } else if outgoing.is_some_and(|outgoing| outgoing.contains(address)) {
                ours.insert(*address, Way::None);
            }
        }
        ours
    }

    fn report(&mut self, seen: &ConnectErrors, news: Vec<News>) {
        let (instance, metrics) = (self.door.instance(), &self.door.shared.metrics);
        ConnectErrorsSeen { instance, seen, guard: &self.guard, before: &self.shown }.emit(metrics);
        self.shown = self.guard.addresses().map(|(address, ..)| address).collect();
        for news in news {
            let limit = seen.limit;
            match news {
                News::Near { address, errors, way, loud } => {
                    let address = Some(address);
                    HostBlockNear { instance, address, errors, limit, way, news: loud }.emit(metrics);
                }
                News::Growing { aborted, loud } => {
                    let (address, errors, way) = (None, aborted, Way::Own);
                    HostBlockNear { instance, address, errors, limit, way, news: loud }.emit(metrics);
                }
                News::Reset { address, before, after, loud } => {
                    HostBlockReset { instance, address, before, after, news: loud }.emit(metrics);
                }
                News::NotReset { address, errors } => {
                    let (before, after) = (errors, errors);
                    HostBlockReset { instance, address, before, after, news: true }.emit(metrics);
                }
                News::Blocked { address, refused } => {
                    let (address, refused) = (Some(address), Some(refused));
                    HostBlocked { instance, address, refused, news: true }.emit(metrics);
                }
                News::Unblocked { address } => {
                    HostUnblocked { instance, address: Some(address) }.emit(metrics);
                }
                News::CannotTell(why) => ConnectErrorsHidden { instance, why }.emit(metrics),
            }
        }
    }

    /// Logs in once, within the login budget, and closes the connection.
    async fn reset(&mut self, reset: Reset) {
        let (login, address) = match reset {
            // Also a probe, like any other login.
            Reset::Own => (self.door.login().await, None),
            Reset::From(address) => (self.door.login_from(address).await, Some(address)),
        };
        match login {
            Ok(session) => {
                session.close().await;
                self.reported.ends("reset");
            }
            Err(fault) => {
                let news = self.reported.begins("reset", &format!("{address:?} {:?}", fault.kind));
                let instance = self.door.instance();
                HostResetFailed { instance, address, fault: &fault, news }.emit(&self.door.shared.metrics);
            }
        }
    }

    /// A login of this task shows a block even where connect errors cannot be read.
    fn logged_in(&mut self, fault: Option<&Fault>) {
        let (instance, metrics) = (self.door.instance(), &self.door.shared.metrics);
        match fault {
            Some(fault) if fault.kind == FaultKind::HostBlocked => {
                let news = self.reported.begins("blocked", "1129");
                HostBlocked { instance, address: None, refused: None, news }.emit(metrics);
            }
            Some(_) => {}
            None if self.reported.ends("blocked") => HostUnblocked { instance, address: None }.emit(metrics),
            None => {}
        }
    }
}

/// Whether a socket can be bound to the address. Nothing is sent.
fn is_of_this_host(address: IpAddr) -> bool {
    UdpSocket::bind((address, 0)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_belongs_to_this_host_if_a_socket_can_be_bound_to_it() {
        assert!(is_of_this_host("127.0.0.2".parse().unwrap()));
        assert!(!is_of_this_host("198.51.100.7".parse().unwrap()), "a documentation address (RFC 5737)");
    }
}
