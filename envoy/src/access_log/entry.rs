//! One access log entry: an event of one session.
//!
//! Entries come over gRPC ([`from_grpc`]) and from the JSON file log ([`from_json`]). Both give the same event, so that a
//! session seen in both is one session. Missing fields are `None`. An entry without identity or kind is
//! skipped, with the reason, and is not an error: logs of another configuration or of a later Envoy must
//! not stop anything.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use serde::Deserialize;

use super::Flags;
use crate::proto::{AccessLogType, Address, TcpAccessLogEntry, address, socket_address};

/// Longer names and reasons are cut, in bytes.
const MAX_TEXT: usize = 256;

/// An identity that is longer, in bytes, is invalid. Envoy's are UUIDs, of 36 characters.
const MAX_IDENTITY: usize = 64;

#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The client's connection was accepted.
    Start,
    /// The connection to the database server is established.
    Connected,
    /// The session is still open.
    Periodic,
    /// The session ended, or was never connected.
    End,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    pub kind: Kind,
    /// Envoy's stream id: unique, the same in all entries of the session.
    pub id: Arc<str>,
    /// When the client was accepted: Unix time by the clock of Envoy's host.
    pub started: Duration,
    /// From then to this entry. Over gRPC only ends have it (measured on 1.40).
    pub lasted: Option<Duration>,
    pub source: Option<SocketAddr>,
    /// Envoy's own address and port towards the server, which the database shows.
    pub outgoing: Option<SocketAddr>,
    pub peer: Option<SocketAddr>,
    /// `None` over gRPC if no host of the cluster could be chosen (measured on 1.40).
    pub cluster: Option<Arc<str>>,
    /// Bytes from the client so far.
    pub received: Option<u64>,
    /// Bytes to the client so far.
    pub sent: Option<u64>,
    /// Includes the flags of failed attempts before a connection that works.
    pub flags: Flags,
    /// Envoy's message about a failed connection to the server, also of an earlier attempt.
    pub transport_failure: Option<Arc<str>>,
    /// Envoy's message if it ended the session itself.
    pub termination: Option<Arc<str>>,
}

#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash)]
pub enum Skipped {
    /// Not an access log entry.
    NotAnEntry,
    /// No valid stream id: `%STREAM_ID%` is missing in the format.
    NoIdentity,
    /// Not one of the four kinds: `%ACCESS_LOG_TYPE%` is missing, or the entry is of an HTTP request.
    NoKind,
    /// No start time: `%START_TIME(%s.%6f)%` is missing in the format.
    NoStart,
}

/// Reads one entry of the gRPC access log.
pub fn from_grpc(entry: &TcpAccessLogEntry) -> Result<Event, Skipped> {
    let common = entry.common_properties.as_ref().ok_or(Skipped::NotAnEntry)?;
    let kind = match AccessLogType::try_from(common.access_log_type) {
        Ok(AccessLogType::TcpConnectionStart) => Kind::Start,
        Ok(AccessLogType::TcpUpstreamConnected) => Kind::Connected,
        Ok(AccessLogType::TcpPeriodic) => Kind::Periodic,
        Ok(AccessLogType::TcpConnectionEnd) => Kind::End,
        _ => return Err(Skipped::NoKind),
    };
    let started = common.start_time.as_ref().ok_or(Skipped::NoStart)?;
    let bytes = entry.connection_properties.as_ref();
    Ok(Event {
        kind,
        id: identity(&common.stream_id)?,
        started: duration(started.seconds, started.nanos).ok_or(Skipped::NoStart)?,
        lasted: common.duration.as_ref().and_then(|lasted| duration(lasted.seconds, lasted.nanos)),
        source: socket_address(common.downstream_remote_address.as_ref()),
        outgoing: socket_address(common.upstream_local_address.as_ref()),
        peer: socket_address(common.upstream_remote_address.as_ref()),
        cluster: text(&common.upstream_cluster),
        received: bytes.map(|bytes| bytes.received_bytes),
        sent: bytes.map(|bytes| bytes.sent_bytes),
        flags: common.response_flags.as_ref().map(Flags::from_grpc).unwrap_or_default(),
        transport_failure: text(&common.upstream_transport_failure_reason),
        termination: text(&common.connection_termination_details),
    })
}

/// Reads one line of the JSON file log, in the format of the shipped configuration.
pub fn from_json(line: &[u8]) -> Result<Event, Skipped> {
    let line: Line = serde_json::from_slice(line).map_err(|_| Skipped::NotAnEntry)?;
    let kind = match line.kind.as_deref() {
        Some("TcpConnectionStart") => Kind::Start,
        Some("TcpUpstreamConnected") => Kind::Connected,
        Some("TcpPeriodic") => Kind::Periodic,
        Some("TcpConnectionEnd") => Kind::End,
        _ => return Err(Skipped::NoKind),
    };
    let seconds =
        line.start.as_deref().and_then(|start| start.parse::<f64>().ok()).ok_or(Skipped::NoStart)?;
    Ok(Event {
        kind,
        id: identity(line.sid.as_deref().unwrap_or_default())?,
        started: Duration::try_from_secs_f64(seconds).map_err(|_| Skipped::NoStart)?,
        lasted: line.dur.map(Duration::from_millis),
        source: json_address(line.client.as_deref()),
        outgoing: json_address(line.ul.as_deref()),
        peer: json_address(line.uh.as_deref()),
        cluster: line.cluster.as_deref().and_then(text),
        received: line.rx,
        sent: line.tx,
        flags: line.flags.as_deref().map(Flags::from_text).unwrap_or_default(),
        transport_failure: line.utfr.as_deref().and_then(text),
        termination: line.details.as_deref().or(line.close.as_deref()).and_then(text),
    })
}

/// The keys of the shipped file log. All may be `null`.
#[derive(Deserialize)]
struct Line {
    #[serde(rename = "type")]
    kind: Option<String>,
    start: Option<String>,
    sid: Option<String>,
    client: Option<String>,
    ul: Option<String>,
    uh: Option<String>,
    cluster: Option<String>,
    flags: Option<String>,
    utfr: Option<String>,
    close: Option<String>,
    details: Option<String>,
    dur: Option<u64>,
    rx: Option<u64>,
    tx: Option<u64>,
}

/// An identity is never cut: a part of one could be another.
fn identity(id: &str) -> Result<Arc<str>, Skipped> {
    match id {
        "" | "-" => Err(Skipped::NoIdentity),
        id if id.len() > MAX_IDENTITY => Err(Skipped::NoIdentity),
        id => Ok(id.into()),
    }
}

fn text(text: &str) -> Option<Arc<str>> {
    if text.is_empty() || text == "-" {
        return None;
    }
    Some(text.get(..text.floor_char_boundary(MAX_TEXT)).unwrap_or_default().into())
}

fn duration(seconds: i64, nanos: i32) -> Option<Duration> {
    let nanos = u32::try_from(nanos).ok().filter(|nanos| *nanos < 1_000_000_000)?;
    Some(Duration::new(u64::try_from(seconds).ok()?, nanos))
}

/// An address with a number and a port; `None` for a Unix socket or a name.
pub(crate) fn socket_address(address: Option<&Address>) -> Option<SocketAddr> {
    let Some(address::Address::SocketAddress(socket)) = &address?.address else { return None };
    let Some(socket_address::PortSpecifier::PortValue(port)) = socket.port_specifier else { return None };
    let ip: IpAddr = socket.address.parse().ok()?;
    Some(SocketAddr::new(ip.to_canonical(), u16::try_from(port).ok()?))
}

fn json_address(address: Option<&str>) -> Option<SocketAddr> {
    let address: SocketAddr = address?.parse().ok()?;
    Some(SocketAddr::new(address.ip().to_canonical(), address.port()))
}
