//! The parser of log lines on real lines of HAProxy 2.6 and 2.8, and on hostile ones.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test")]

use std::time::Duration;

use haproxy::log::{Ended, FORMAT, Line, MAX_LINE, Moment, Side, Unread, parse};
use proptest::prelude::*;

const SAMPLES: [(&str, &str); 2] =
    [("2.6", include_str!("data/2.6-log.txt")), ("2.8", include_str!("data/2.8-log.txt"))];

/// What was done, and the line.
fn lines(sample: &str) -> Vec<(&str, &str)> {
    let lines: Vec<&str> = sample.lines().collect();
    lines.chunks(2).map(|pair| (pair[0].trim_start_matches("# "), pair[1])).collect()
}

fn ended<'a>(sample: &'a str, what: &str) -> Ended<'a> {
    let found = lines(sample).into_iter().find(|(done, _)| *done == what).unwrap_or_else(|| panic!("{what}"));
    match parse(found.1.as_bytes()) {
        Ok(Line::Ended(ended)) => ended,
        other => panic!("{other:?} of {}", found.1),
    }
}

#[test]
fn every_real_line_is_read() {
    for (version, sample) in SAMPLES {
        let mut notices = 0;
        for (what, line) in lines(sample) {
            match parse(line.as_bytes()) {
                Ok(Line::Ended(ended)) => assert_eq!(ended.worker.is_none(), line.contains(" ["), "{what}"),
                Ok(Line::Notice) => notices += 1,
                Err(error) => panic!("{version} {what}: {error:?}: {line}"),
            }
        }
        assert!(notices >= 6, "{version}: {notices}");
    }
}

#[test]
fn both_formats_show_how_a_session_ended() {
    for (_, sample) in SAMPLES {
        for prefix in ["", "tcplog: "] {
            let state = |what: &str| ended(sample, &format!("{prefix}{what}")).state.to_string();
            // Which side was first does not tell how it went: a reset looks like an ordinary end.
            assert_eq!((state("server fin first"), state("server rst")), ("SD".into(), "SD".into()));
            assert_eq!((state("client fin first"), state("client rst")), ("CD".into(), "CD".into()));
            assert_eq!(state("client nothing sent"), "--");
            assert_eq!(
                (state("shutdown session"), state("shutdown sessions server")),
                ("K-".into(), "K-".into())
            );
        }
        let state = |what: &str| ended(sample, what).state;
        assert_eq!((state("nosrv").side, state("nosrv").moment), (Side::Server, Moment::Connect));
        assert_eq!(state("silent").words(), "`timeout connect` passed");
        assert_eq!(state("queue timeout").words(), "`timeout queue` passed");
        assert_eq!(state("server timeout").words(), "`timeout server` passed");
        assert_eq!(state("client timeout").words(), "`timeout client` passed");
        assert_eq!(state("reject content").side, Side::Refused);
    }
}

#[test]
fn the_fields_of_a_session_are_read() {
    let (_, sample) = SAMPLES[0];
    let session = ended(sample, "server fin first");
    assert_eq!((session.frontend, session.backend, session.server), ("ok", "ok", Some("a")));
    assert_eq!((session.from_client, session.to_client, session.retries), (Some(5), 100, 0));
    assert_eq!(session.peer, Some(([127, 0, 0, 1], 17_100).into()));
    assert!(session.outgoing.is_some() && session.source.is_some() && session.connected.is_some());
    assert_eq!((session.sequence, session.id), (Some(0), Some(0)));
    assert!(session.lasted > Duration::from_millis(100));

    let refused = ended(sample, "refused");
    assert_eq!((refused.server, refused.connected, refused.retries), (Some("a"), None, 1));
    let without = ended(sample, "nosrv");
    assert_eq!((without.server, without.peer, without.outgoing, without.waited), (None, None, None, None));
    let room = ended(sample, "waiting room");
    assert_eq!((room.server, room.retries), (Some("wait"), 2));
    assert_eq!(ended(sample, "unix room").source, None, "a client on a Unix socket");
    assert_eq!(ended(sample, "tcplog: unix client").source, None);
    let plain = ended(sample, "tcplog: refused");
    assert_eq!((plain.server, plain.retries, plain.from_client, plain.outgoing), (Some("a"), 1, None, None));
}

#[test]
fn syslog_headers_do_not_matter() {
    let (_, sample) = SAMPLES[0];
    for what in ["server fin first", "tcplog: server fin first"] {
        let line = lines(sample).into_iter().find(|(done, _)| *done == what).unwrap().1;
        let (_, message) = line.split_once("]: ").unwrap();
        let expected = parse(line.as_bytes());
        for header in [
            "",
            "<134>",
            "<134>1 2026-11-29T08:06:38.000000+00:00 proxy-1 haproxy 12440 - - ",
            "<134>Nov  9 08:06:38 proxy-1.example haproxy[12440]: ",
            "<134>Nov 29 08:06:38 my-tag[1]: ",
        ] {
            let other = format!("{header}{message}\n");
            assert_eq!(parse(other.as_bytes()), expected, "{other}");
        }
    }
}

#[test]
fn foreign_and_broken_lines_are_unread_with_their_reason() {
    let of = |line: &str| parse(line.as_bytes()).unwrap_err();
    assert_eq!(of("<13>Nov 29 08:06:38 sshd[1]: Accepted publickey for root"), Unread::Foreign);
    assert_eq!(of(""), Unread::Foreign);
    assert_eq!(of("rds-lb-agent/1 ci=127.0.0.1"), Unread::Field("ci"));
    assert_eq!(of("rds-lb-agent/2 ci=127.0.0.1 cp=1"), Unread::Foreign);
    assert_eq!(parse(&[0xff; 10]), Err(Unread::NotText));
    assert_eq!(parse(&[b'a'; MAX_LINE + 1]), Err(Unread::TooLong));
    let http = "<134>Nov 29 08:06:38 haproxy[1]: 127.0.0.1:1 [29/Nov/2026:08:06:45.137] f b/s 0/0/1/2/3 200 100 - - ---- 1/1/0/0/0 0/0 \"GET / HTTP/1.1\"";
    assert_eq!(of(http), Unread::Foreign, "option httplog");
    // `option logasap`: the session goes on.
    let early = "127.0.0.1:1 [29/Nov/2026:08:06:45.137] f b/s 1/0/+1 +0 -- 1/1/0/0/0 0/0";
    assert!(matches!(of(early), Unread::Field("Tt" | "B")));
}

#[test]
fn the_format_names_every_field_that_is_read() {
    // A line in which each alias has its own text shows that no field is missing.
    for field in [
        "pid", "lc", "rt", "ci", "cp", "f", "b", "s", "si", "sp", "bi", "bp", "ts", "Tw", "Tc", "Tt", "rc",
        "U", "B",
    ] {
        assert!(FORMAT.contains(&format!(" {field}=%{field}")), "{field}");
    }
    assert!(FORMAT.len() < 300);
}

#[test]
fn the_recipes_and_the_page_have_the_format() {
    for text in [
        include_str!("../../deploy/haproxy/haproxy.cfg"),
        include_str!("../../deploy/haproxy/mysql.cfg"),
        include_str!("../../deploy/haproxy/fail-closed.cfg"),
        include_str!("../../docs/HANDOFFS.md"),
    ] {
        assert!(text.contains(&format!("\n    log-format \"{FORMAT}\"\n")), "{text}");
    }
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..2_000)) {
        let _ = parse(&bytes);
    }

    #[test]
    fn any_change_of_a_real_line_is_read_or_refused(
        line in 0_usize..80,
        at in 0_usize..300,
        text in "\\PC{0,8}",
        cut in 0_usize..8,
    ) {
        let all: Vec<(&str, &str)> = SAMPLES.iter().flat_map(|(_, sample)| lines(sample)).collect();
        let mut changed = all[line % all.len()].1.to_owned();
        let at = changed.floor_char_boundary(at.min(changed.len()));
        let end = changed.floor_char_boundary((at + cut).min(changed.len()));
        changed.replace_range(at..end, &text);
        if let Ok(Line::Ended(ended)) = parse(changed.as_bytes()) {
            prop_assert!(ended.backend.len() <= 256 && ended.frontend.len() <= 256);
            prop_assert!(!ended.backend.contains(|c: char| c.is_control() || c == '"'));
        }
    }

    #[test]
    fn the_state_of_any_two_letters_is_printed_as_it_was_read(letters in "[A-Za-z-]{2}") {
        let line = format!("rds-lb-agent/1 ci=1.2.3.4 cp=1 f=f b=b s=s ts={letters} Tc=-1 Tt=1 B=0");
        match parse(line.as_bytes()) {
            Ok(Line::Ended(ended)) => prop_assert_eq!(ended.state.to_string(), letters),
            other => prop_assert_eq!(other, Err(Unread::Field("ts"))),
        }
    }
}
