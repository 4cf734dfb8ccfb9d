//! The parser on the real output of four versions of HAProxy.

use std::time::Duration;

use haproxy::show_sess::{Entry, Parser, Session, resolve};
use proptest::prelude::*;

const SAMPLES: [(&str, &str); 4] = [
    ("2.6", include_str!("data/2.6-show-sess-all.txt")),
    ("2.8", include_str!("data/2.8-show-sess-all.txt")),
    ("3.0", include_str!("data/3.0-show-sess-all.txt")),
    ("3.2", include_str!("data/3.2-show-sess-all.txt")),
];

fn entries(bytes: &[u8], piece: usize) -> Vec<Entry> {
    let mut parser = Parser::new();
    let mut entries = Vec::new();
    for piece in bytes.chunks(piece.max(1)) {
        parser.push(piece, |entry| entries.push(entry));
    }
    entries.extend(parser.finish());
    entries
}

fn session(text: &str) -> Session {
    let mut sessions = resolve(entries(text.as_bytes(), text.len()));
    assert_eq!(sessions.len(), 1, "{sessions:?}");
    sessions.remove(0)
}

#[test]
fn each_version_shows_the_same_session() {
    for (version, text) in SAMPLES {
        let session = session(text);
        assert_eq!(session.id, 0, "{version}");
        assert_eq!(
            (&*session.frontend, &*session.backend, &*session.server),
            ("fe_pg", "be_pg", "pg1"),
            "{version}"
        );
        assert_eq!(session.peer, "127.0.0.1:29054".parse().unwrap(), "{version}");
        assert!(Some(session.outgoing) != session.source, "{version}");
        let age = session.age().unwrap();
        assert!(age > Duration::from_secs(2) && age < Duration::from_secs(6), "{version}: {age:?}");
    }
}

#[test]
fn the_addresses_are_those_of_each_side() {
    let session = session(SAMPLES[3].1);
    assert_eq!(session.pointer, "0x7f2cebf2c800");
    assert_eq!(session.accepted, "22/Nov/2026:14:48:48.312877");
    assert_eq!(session.source, "127.0.0.1:55052".parse().ok());
    assert_eq!(session.outgoing, "127.0.0.1:60358".parse().unwrap());
    assert_eq!(session.age(), Some(Duration::from_micros(2_329_849)));
}

#[test]
fn a_session_accepted_just_before_midnight_has_its_right_age() {
    let text = SAMPLES[3]
        .1
        .replace("22/Nov/2026:14:48:48.312877", "21/Nov/2026:23:59:59.000000")
        .replace("22/Nov/2026:14:48:50.642726", "22/Nov/2026:00:00:01.500000");
    assert_eq!(session(&text).age(), Some(Duration::from_millis(2_500)));
}

#[test]
fn without_the_asking_connection_ages_are_unknown() {
    let text = SAMPLES[3].1.replace("frontend=GLOBAL", "frontend=other");
    let sessions = resolve(entries(text.as_bytes(), 100));
    assert!(sessions.iter().all(|session| session.age().is_none()));
}

#[test]
fn ipv6_addresses_and_unknown_lines_are_read() {
    let text = [
        "0x1: [01/Jan/2027:00:00:00.000001] id=7 proto=tcpv6 source=2001:db8::1:4711 novel=yes",
        "  something=new (id=1) addr=[::1]:1",
        "  frontend=fe (id=2 mode=tcp), listener=? (id=1) addr=2001:db8::2:5432",
        "  backend=be (id=3 mode=tcp) addr=2001:db8::3:60000",
        "  server=s1 (id=1) addr=2001:db8::4:5432\n",
    ]
    .join("\n");
    let mut sessions = resolve(entries(text.as_bytes(), 7));
    let session = sessions.remove(0);
    assert_eq!(session.source, "[2001:db8::1]:4711".parse().ok());
    assert_eq!(session.peer, "[2001:db8::4]:5432".parse().unwrap());
}

#[test]
fn a_truncated_dump_shows_no_wrong_session() {
    for (version, text) in SAMPLES {
        let whole = session(text);
        for end in 0..text.len() {
            for session in resolve(entries(&text.as_bytes()[..end], 50)) {
                assert_eq!(
                    Session { apparent_age: whole.apparent_age, ..session },
                    whole,
                    "{version} at {end}"
                );
            }
        }
    }
}

#[test]
fn an_overlong_line_is_skipped_alone() {
    let long = format!("  flags={}\n", "x".repeat(100_000));
    let text = SAMPLES[0].1.replacen("  frontend=", &format!("{long}  frontend="), 1);
    for piece in [1, 100, 5_000, 1_000_000] {
        assert_eq!(resolve(entries(text.as_bytes(), piece)).len(), 1, "pieces of {piece}");
    }
}

#[test]
fn lines_after_an_unreadable_header_are_ignored() {
    for header in ["0x2: \u{7f}", &format!("0x2: {}", "x".repeat(9_000))] {
        let stranger =
            format!("{header}\n  backend=other (id=1) addr=9.9.9.9:9\n  server=other addr=9.9.9.9:9\n\n");
        let text = SAMPLES[1].1.trim_end().to_owned() + "\n" + &stranger;
        for piece in [1, 100, 5_000, 1_000_000] {
            let found = resolve(entries(text.as_bytes(), piece));
            assert_eq!(found, [session(SAMPLES[1].1)]);
        }
    }
}

proptest! {
    #[test]
    fn pieces_of_any_size_give_the_same_entries(piece in 1_usize..700, sample in 0_usize..4) {
        let text = SAMPLES[sample].1.as_bytes();
        prop_assert_eq!(entries(text, piece), entries(text, text.len()));
    }

    #[test]
    fn pieces_of_any_lines_give_the_same_entries(
        lines in prop::collection::vec((0_usize..8, prop_oneof![0_usize..40, 4_000_usize..5_000]), 0..40),
        piece in 1_usize..6_000,
    ) {
        let line = |(kind, long): (usize, usize)| {
            let begin = ["0x1: [01/Jan/2027:00:00:00.000001] id=1 source=1.1.1.1:1 ", "0x", "  backend=b addr=1.1.1.2:2 ",
                "  server=s addr=1.1.1.3:3 ", "  frontend=f ", "      x", "", "\u{e9}"][kind];
            format!("{begin}{}\n", "y".repeat(long))
        };
        let text: String = lines.into_iter().map(line).collect();
        prop_assert_eq!(entries(text.as_bytes(), piece), entries(text.as_bytes(), text.len()));
    }

    #[test]
    fn any_bytes_are_accepted_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..2_000), piece in 1_usize..50) {
        let _ = resolve(entries(&bytes, piece));
    }

    #[test]
    fn a_damaged_dump_never_invents_an_address(at in 0_usize..2_000, byte in any::<u8>()) {
        let mut text = SAMPLES[2].1.as_bytes().to_vec();
        let at = at % text.len();
        text[at] = byte;
        for session in resolve(entries(&text, 64)) {
            prop_assert!(session.pointer.starts_with("0x"));
        }
    }
}
