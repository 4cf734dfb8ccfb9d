//! Entries, and what went wrong with a hand-off.

use std::time::Duration;

use envoy::{
    access_log::{
        Event, Flags, HandOff, Kind, Skipped,
        entry::{from_grpc, from_json},
    },
    proto::{Message, StreamAccessLogsMessage, TcpAccessLogEntry, stream_access_logs_message::LogEntries},
};
use proptest::prelude::*;

use super::{by_session, lines, messages};

/// By the generated code, all at once.
fn grpc_events() -> Vec<Event> {
    let mut events = Vec::new();
    for message in messages() {
        let message = StreamAccessLogsMessage::decode(&*message).unwrap();
        let Some(LogEntries::TcpLogs(entries)) = message.log_entries else { continue };
        events.extend(entries.log_entry.iter().map(|entry| from_grpc(entry).unwrap()));
    }
    events
}

#[test]
fn both_logs_tell_the_same_of_each_session() {
    let grpc = by_session(grpc_events());
    let file = by_session(lines().map(|line| from_json(line).unwrap()));
    assert_eq!(grpc.keys().collect::<Vec<_>>(), file.keys().collect::<Vec<_>>());
    for (id, grpc) in &grpc {
        let file = &file[id];
        assert_eq!(grpc.len(), file.len(), "{id}");
        for (grpc, file) in grpc.iter().zip(file) {
            // The file has microseconds, and whole milliseconds since.
            assert!(grpc.started.abs_diff(file.started) < Duration::from_micros(2), "{grpc:?} {file:?}");
            // Over gRPC only ends say how long it was, and no cluster where no host was chosen.
            assert_eq!(grpc.lasted.is_some(), grpc.kind == Kind::End);
            let lasted = file.lasted.unwrap();
            assert!(grpc.lasted.unwrap_or(lasted).abs_diff(lasted) < Duration::from_millis(2));
            assert_eq!(grpc.kind, file.kind);
            assert_eq!((grpc.source, grpc.outgoing, grpc.peer), (file.source, file.outgoing, file.peer));
            assert!(grpc.cluster == file.cluster || grpc.flags.has(Flags::NO_HEALTHY_UPSTREAM));
            assert_eq!((grpc.received, grpc.sent), (file.received, file.sent));
            assert_eq!(grpc.flags, file.flags, "{id}");
        }
    }
}

#[test]
fn a_connected_session_has_all_that_the_join_needs() {
    let sessions = by_session(grpc_events());
    let periodic: Vec<_> = sessions.values().flatten().filter(|event| event.kind == Kind::Periodic).collect();
    assert!(periodic.len() >= 4);
    for event in periodic {
        assert!(event.source.is_some() && event.outgoing.is_some() && event.peer.is_some(), "{event:?}");
    }
}

#[test]
fn failures_are_distinguished_from_sessions_that_worked() {
    let ends = grpc_events().into_iter().filter(|event| event.kind == Kind::End);
    let seen: Vec<_> = ends.map(|end| (end.cluster.clone().unwrap_or_default(), HandOff::of(&end))).collect();
    let of = |cluster: &str| -> Vec<_> {
        seen.iter().filter(|(name, _)| &**name == cluster).map(|(_, hand_off)| *hand_off).collect()
    };
    assert_eq!(of("dead"), [Some(HandOff::Refused)]);
    assert_eq!(of("slow"), [Some(HandOff::TimedOut); 2]);
    assert_eq!(of(""), [Some(HandOff::NoHealthyHost), Some(HandOff::NoCluster)]);
    assert_eq!(of("refuse"), [Some(HandOff::ShortSession)], "a server that says no and hangs up");
    assert_eq!(of("silent"), [None], "UR alone is not a failure");
    // Of the writer's five, one lasted; one kept the flag of a first try that failed.
    assert_eq!(of("writer").iter().filter(|hand_off| hand_off.is_none()).count(), 1);
    assert!(of("writer").iter().flatten().all(|hand_off| !hand_off.failed()));
}

#[test]
fn what_is_missing_skips_the_entry_and_says_why() {
    assert_eq!(from_grpc(&TcpAccessLogEntry::default()), Err(Skipped::NotAnEntry));
    let real = messages().iter().find_map(|message| {
        match StreamAccessLogsMessage::decode(&**message).unwrap().log_entries {
            Some(LogEntries::TcpLogs(entries)) => entries.log_entry.into_iter().next(),
            _ => None,
        }
    });
    let real = real.unwrap();
    let without = |change: fn(&mut TcpAccessLogEntry)| {
        let mut entry = real.clone();
        change(&mut entry);
        from_grpc(&entry)
    };
    assert_eq!(
        without(|entry| entry.common_properties.as_mut().unwrap().stream_id.clear()),
        Err(Skipped::NoIdentity)
    );
    assert_eq!(
        without(|entry| entry.common_properties.as_mut().unwrap().stream_id = "x".repeat(10_000)),
        Err(Skipped::NoIdentity)
    );
    assert_eq!(
        without(|entry| entry.common_properties.as_mut().unwrap().start_time = None),
        Err(Skipped::NoStart)
    );
    assert_eq!(
        without(|entry| entry.common_properties.as_mut().unwrap().access_log_type = 99),
        Err(Skipped::NoKind)
    );
    assert_eq!(from_json(b"{}"), Err(Skipped::NoKind));
    assert_eq!(from_json(b"[1]"), Err(Skipped::NotAnEntry));
    assert_eq!(from_json(br#"{"type":"TcpPeriodic","sid":"-","start":"1.5"}"#), Err(Skipped::NoIdentity));
    assert_eq!(from_json(br#"{"type":"TcpPeriodic","sid":"a","start":"-1"}"#), Err(Skipped::NoStart));
    assert!(
        from_json(br#"{"type":"TcpPeriodic","sid":"a","start":"1.5"}"#).is_ok(),
        "the rest may be missing"
    );
}

#[test]
fn flags_are_read_as_they_are_printed() {
    assert!(Flags::from_text("-").is_empty());
    assert!(Flags::from_text("XX").is_empty());
    let flags = Flags::from_text("UF,URX,QQ");
    assert!(flags.has(Flags::UPSTREAM_CONNECTION_FAILURE) && flags.has(Flags::RETRY_LIMIT_EXCEEDED));
    assert_eq!(flags.to_string(), "UF,URX");
    assert_eq!(Flags::default().to_string(), "-");
}

proptest! {
    #[test]
    fn no_line_makes_it_panic(line in any::<Vec<u8>>()) {
        let _ = from_json(&line);
    }

    /// Real lines, damaged.
    #[test]
    fn no_damage_makes_it_panic(which in any::<prop::sample::Index>(), at in any::<prop::sample::Index>(), to in any::<u8>()) {
        let all: Vec<_> = lines().collect();
        let mut line = which.get(&all).to_vec();
        *at.get_mut(&mut line) = to;
        if let Ok(event) = from_json(&line) {
            let _ = HandOff::of(&event);
        }
        let all = messages();
        let mut message = which.get(&all).clone();
        *at.get_mut(&mut message) = to;
        if let Ok(message) = StreamAccessLogsMessage::decode(&*message)
            && let Some(LogEntries::TcpLogs(entries)) = message.log_entries
        {
            for entry in &entries.log_entry {
                let _ = from_grpc(entry);
            }
        }
    }
}
