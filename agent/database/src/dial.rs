//! DNS and TCP, what network errors mean, and helpers for messages of faults.

use std::{
    error::Error,
    fmt::Write as _,
    io::{self, ErrorKind},
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use agent_core::{Fault, FaultKind, Phase};
use tokio::{
    net::{TcpSocket, TcpStream, lookup_host},
    time::{Instant, timeout, timeout_at},
};

use crate::{report::LoginReport, target::Address};

/// How many addresses of one name are tried. RDS names have one or two.
const MOST_ADDRESSES: usize = 8;

/// The addresses of a name, in the resolver's order, without duplicates.
///
/// A resolver that does not answer says as little about the database as one that has no such
/// name, so both are [`FaultKind::NameNotResolved`].
pub(crate) async fn resolve(address: &Address, limit: Duration) -> Result<Vec<SocketAddr>, Fault> {
    if let Ok(ip) = address.host.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(ip, address.port)]);
    }
    let not_resolved = |why: String| {
        Fault::new(
            Phase::Dns,
            FaultKind::NameNotResolved,
            format!("{} cannot be resolved: {why}", address.host),
        )
    };
    let found = timeout(limit, lookup_host((&*address.host, address.port)))
        .await
        .map_err(|_| not_resolved(format!("no answer from the resolver within {limit:?}")))?
        .map_err(|error| not_resolved(error.to_string()))?;
    let mut addresses = Vec::new();
    for address in found {
        if !addresses.contains(&address) && addresses.len() < MOST_ADDRESSES {
            addresses.push(address);
        }
    }
    if addresses.is_empty() { Err(not_resolved("the name has no address".to_owned())) } else { Ok(addresses) }
}

/// Connects to the first address that accepts, within `limit` for all of them together, from
/// `source` if given.
pub(crate) async fn connect(
    addresses: &[SocketAddr],
    source: Option<IpAddr>,
    limit: Duration,
    report: &mut LoginReport,
) -> Result<TcpStream, Fault> {
    let deadline = Instant::now() + limit;
    let mut failures = Vec::new();
    for (tried, &address) in addresses.iter().enumerate() {
        // A silent address must not use up the time of the addresses after it.
        let left = u32::try_from(addresses.len() - tried).unwrap_or(u32::MAX);
        let share = deadline.saturating_duration_since(Instant::now()) / left;
        let outcome = timeout_at(Instant::now() + share, open(address, source)).await;
        match outcome {
            Ok(Ok(stream)) => {
                // Queries and answers are small: never wait to fill a segment.
                let prepared = stream.set_nodelay(true).and_then(|()| stream.local_addr());
                match prepared {
                    Ok(local) => {
                        report.server_address = Some(address);
                        report.local_address = Some(local);
                        return Ok(stream);
                    }
                    Err(error) => failures.push((address, io_kind(&error), error.to_string())),
                }
            }
            Ok(Err(error)) => failures.push((address, io_kind(&error), error.to_string())),
            Err(_) => failures.push((address, FaultKind::TimedOut, format!("no answer within {share:.1?}"))),
        }
    }
    Err(all_failed(&failures))
}

/// A connection to one address; an error if `source` is of the other address family.
async fn open(address: SocketAddr, source: Option<IpAddr>) -> io::Result<TcpStream> {
    let Some(source) = source else { return TcpStream::connect(address).await };
    if source.is_ipv4() != address.is_ipv4() {
        return Err(io::Error::new(
            ErrorKind::NetworkUnreachable,
            format!("not reachable from source address {source}"),
        ));
    }
    let socket = if source.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.bind(SocketAddr::new(source, 0))?;
    socket.connect(address).await
}

/// One fault for all addresses. A refusal is proof only if every reachable address refuses; an
/// address without a route is ignored.
fn all_failed(failures: &[(SocketAddr, FaultKind, String)]) -> Fault {
    let mut message = String::new();
    for (address, _, why) in failures {
        let separator = if message.is_empty() { "" } else { "; " };
        // Writing to a String cannot fail.
        let _ = write!(message, "{separator}{address}: {why}");
    }
    let routed = || failures.iter().map(|(_, kind, _)| *kind).filter(|kind| *kind != FaultKind::Unreachable);
    let kind = if routed().next().is_none() {
        FaultKind::Unreachable
    } else if routed().all(|kind| kind == FaultKind::ConnectionRefused) {
        FaultKind::ConnectionRefused
    } else {
        routed().find(|kind| *kind != FaultKind::ConnectionRefused).unwrap_or(FaultKind::TimedOut)
    };
    Fault::new(Phase::Tcp, kind, message)
}

/// Linux error numbers without an [`ErrorKind`]: ENFILE, EMFILE, ENOBUFS.
const OUT_OF_RESOURCES: [i32; 3] = [23, 24, 105];

pub(crate) fn io_kind(error: &io::Error) -> FaultKind {
    if error.raw_os_error().is_some_and(|number| OUT_OF_RESOURCES.contains(&number)) {
        return FaultKind::OutOfResources;
    }
    match error.kind() {
        ErrorKind::OutOfMemory => FaultKind::OutOfResources,
        ErrorKind::ConnectionRefused => FaultKind::ConnectionRefused,
        ErrorKind::TimedOut | ErrorKind::WouldBlock => FaultKind::TimedOut,
        ErrorKind::InvalidData | ErrorKind::InvalidInput => FaultKind::Protocol,
        // No route, no address, no free port, or a local firewall.
        ErrorKind::HostUnreachable
        | ErrorKind::NetworkUnreachable
        | ErrorKind::NetworkDown
        | ErrorKind::AddrNotAvailable
        | ErrorKind::AddrInUse
        | ErrorKind::PermissionDenied => FaultKind::Unreachable,
        _ => FaultKind::Disconnected,
    }
}

/// The fault for an I/O error, with its chain of causes.
pub(crate) fn io_fault(phase: Phase, error: &io::Error, when: &str) -> Fault {
    Fault::new(phase, io_kind(error), format!("{when}: {}", chain(error)))
}

/// The same fault, with what was being done in front of its message.
pub(crate) fn during(what: &str, fault: Fault) -> Fault {
    Fault { message: format!("{what}: {}", fault.message), ..fault }
}

/// An error and its causes, each once.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut words = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !words.ends_with(&next) {
            words.push_str(": ");
            words.push_str(&next);
        }
        cause = error.source();
    }
    words
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use agent_core::{Blame, Evidence};
    use tokio::net::TcpListener;

    use super::*;

    const V4: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 0, 2, 7)), 5432);
    const V6: SocketAddr = SocketAddr::new(IpAddr::V6(Ipv6Addr::LOCALHOST), 5432);

    fn kind_of(failures: &[(SocketAddr, FaultKind)]) -> FaultKind {
        let failures: Vec<_> =
            failures.iter().map(|(address, kind)| (*address, *kind, String::new())).collect();
        all_failed(&failures).kind
    }

    #[test]
    fn a_refusal_is_proof_only_if_every_reachable_address_refuses() {
        use FaultKind::{ConnectionRefused, TimedOut, Unreachable};
        assert_eq!(kind_of(&[(V4, ConnectionRefused)]), ConnectionRefused);
        assert_eq!(kind_of(&[(V6, Unreachable), (V4, ConnectionRefused)]), ConnectionRefused);
        assert_eq!(kind_of(&[(V6, TimedOut), (V4, ConnectionRefused)]), TimedOut);
        assert_eq!(kind_of(&[(V4, ConnectionRefused), (V6, TimedOut)]), TimedOut);
        assert_eq!(kind_of(&[(V6, Unreachable), (V4, Unreachable)]), Unreachable);
    }

    #[test]
    fn exhausted_resources_of_the_agents_host_are_no_evidence_against_the_database() {
        use FaultKind::{ConnectionRefused, OutOfResources, Unreachable};
        // ENOMEM, ENFILE, EMFILE, ENOBUFS.
        for number in [12, 23, 24, 105] {
            let fault = io_fault(Phase::Tcp, &io::Error::from_raw_os_error(number), "connecting");
            assert_eq!(fault.kind, OutOfResources, "{fault}");
            assert_eq!((fault.evidence(), fault.blame()), (Evidence::Nothing, Blame::Agent));
        }
        assert_eq!(kind_of(&[(V6, Unreachable), (V4, OutOfResources)]), OutOfResources);
        assert_eq!(kind_of(&[(V6, OutOfResources), (V4, ConnectionRefused)]), OutOfResources);
    }

    #[test]
    fn the_message_names_every_address_that_was_tried() {
        let fault = all_failed(&[
            (V6, FaultKind::Unreachable, "no route".to_owned()),
            (V4, FaultKind::TimedOut, "no answer within 1.0s".to_owned()),
        ]);
        assert_eq!(fault.message, "[::1]:5432: no route; 10.0.2.7:5432: no answer within 1.0s");
    }

    #[tokio::test]
    async fn the_next_address_is_tried_when_one_refuses() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let open = listener.local_addr().unwrap();
        let closed = {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            listener.local_addr().unwrap()
        };
        let mut report = LoginReport::default();
        let stream = connect(&[closed, open], None, Duration::from_secs(2), &mut report).await.unwrap();
        assert_eq!(report.server_address, Some(open));
        assert_eq!(report.local_address, stream.local_addr().ok());

        let fault = connect(&[closed], None, Duration::from_secs(2), &mut report).await.unwrap_err();
        assert_eq!((fault.phase, fault.kind), (Phase::Tcp, FaultKind::ConnectionRefused));
    }

    #[tokio::test]
    async fn the_server_sees_the_requested_source_address() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = listener.local_addr().unwrap();
        let source: IpAddr = "127.0.0.2".parse().unwrap();
        let mut report = LoginReport::default();
        let limit = Duration::from_secs(2);
        let _stream = connect(&[V6, server], Some(source), limit, &mut report).await.unwrap();
        assert_eq!(listener.accept().await.unwrap().1.ip(), source);
        assert_eq!(report.local_address.map(|local| local.ip()), Some(source));

        // An address that this host does not have (RFC 5737).
        let elsewhere = Some("198.51.100.7".parse().unwrap());
        let fault = connect(&[server], elsewhere, limit, &mut report).await.unwrap_err();
        assert_eq!(fault.kind, FaultKind::Unreachable, "{fault}");
    }

    #[tokio::test]
    async fn an_unknown_name_is_not_resolved() {
        let address = Address::new("no-such-host.invalid", 5432);
        let fault = resolve(&address, Duration::from_secs(5)).await.unwrap_err();
        assert_eq!((fault.phase, fault.kind), (Phase::Dns, FaultKind::NameNotResolved));
        assert!(fault.message.contains("no-such-host.invalid"), "{}", fault.message);
    }

    #[tokio::test]
    async fn an_ip_address_needs_no_resolver() {
        let found = resolve(&Address::new("fd00::7", 5432), Duration::ZERO).await.unwrap();
        assert_eq!(found, ["[fd00::7]:5432".parse().unwrap()]);
    }

    #[test]
    fn a_chain_contains_each_cause_once() {
        let error = io::Error::new(ErrorKind::ConnectionReset, io::Error::other("peer went away"));
        assert_eq!(chain(&error), "peer went away");
    }
}
