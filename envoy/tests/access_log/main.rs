//! The access log, on what a real Envoy 1.40 sent: two worker threads, a session that
//! works at the second try, a refused and a silent server, no healthy host, no cluster.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a test")]

mod entries;
mod file;
mod service;
mod sessions;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use envoy::access_log::{Event, Flags, Kind};

/// The captured messages, in the order in which they came.
fn messages() -> Vec<Vec<u8>> {
    let mut rest: &[u8] = include_bytes!("../samples/access_log.bin");
    let mut messages = Vec::new();
    while !rest.is_empty() {
        let length = prost::decode_length_delimiter(&mut rest).unwrap();
        let (message, after) = rest.split_at(length);
        messages.push(message.to_vec());
        rest = after;
    }
    messages
}

/// The file log of the same run.
fn lines() -> impl Iterator<Item = &'static [u8]> {
    include_bytes!("../samples/sessions.json").split(|byte| *byte == b'\n').filter(|line| !line.is_empty())
}

/// An event of a session that is connected through this outgoing port.
fn event(kind: Kind, id: &str, port: u16, lasted: Duration) -> Event {
    Event {
        kind,
        id: id.into(),
        started: Duration::from_secs(1_795_383_674),
        lasted: Some(lasted),
        source: Some(([10, 0, 0, 1], port).into()),
        outgoing: Some(([10, 0, 0, 2], port).into()),
        peer: Some(([10, 0, 0, 3], 5432).into()),
        cluster: Some("writer".into()),
        received: Some(5),
        sent: Some(5),
        flags: Flags::default(),
        transport_failure: None,
        termination: None,
    }
}

fn by_session(events: impl IntoIterator<Item = Event>) -> BTreeMap<Arc<str>, Vec<Event>> {
    let mut sessions: BTreeMap<Arc<str>, Vec<Event>> = BTreeMap::new();
    for event in events {
        sessions.entry(event.id.clone()).or_default().push(event);
    }
    sessions
}
