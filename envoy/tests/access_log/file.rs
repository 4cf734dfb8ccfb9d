//! The tail of the file log.

use std::{
    fs::{self, OpenOptions},
    io::Write,
    path::{Path, PathBuf},
};

use envoy::access_log::{Position, Tail, entry::from_json};
use proptest::prelude::*;
use tempfile::TempDir;

use super::lines;

fn place() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sessions.json");
    (folder, path)
}

fn write(path: &Path, bytes: &[u8]) {
    OpenOptions::new().create(true).append(true).open(path).unwrap().write_all(bytes).unwrap();
}

fn line(id: &str) -> Vec<u8> {
    format!("{{\"type\":\"TcpConnectionEnd\",\"sid\":\"{id}\",\"start\":\"1.5\"}}\n").into_bytes()
}

/// All there is to read: the ids of the events, and how many lines were none.
fn read(tail: &mut Tail) -> (Vec<String>, usize) {
    let (mut ids, mut skipped) = (Vec::new(), 0);
    loop {
        let lines = tail.read().unwrap();
        ids.extend(lines.events.iter().map(|event| event.id.to_string()));
        skipped += lines.skipped.len();
        if !lines.more {
            return (ids, skipped);
        }
    }
}

fn ids(all: &[&str]) -> (Vec<String>, usize) {
    (all.iter().map(|id| (*id).to_owned()).collect(), 0)
}

#[test]
fn a_real_log_is_read_whole() {
    let (_folder, path) = place();
    let mut tail = Tail::new(path.clone(), None);
    assert_eq!(read(&mut tail), ids(&[]), "it is not there yet");
    fs::write(&path, include_bytes!("../samples/sessions.json")).unwrap();
    let (events, skipped) = read(&mut tail);
    assert_eq!((events.len(), skipped), (lines().count(), 0));
}

#[test]
fn what_was_there_before_the_first_start_is_of_no_interest() {
    let (_folder, path) = place();
    write(&path, &line("old"));
    let mut tail = Tail::new(path.clone(), None);
    assert_eq!(read(&mut tail), ids(&[]));
    write(&path, &line("new"));
    assert_eq!(read(&mut tail), ids(&["new"]));
}

#[test]
fn half_a_line_waits_for_its_other_half() {
    let (_folder, path) = place();
    let mut tail = Tail::new(path.clone(), None);
    read(&mut tail);
    let whole = line("a");
    let (begin, end) = whole.split_at(20);
    write(&path, begin);
    assert_eq!(read(&mut tail), ids(&[]));
    write(&path, end);
    assert_eq!(read(&mut tail), ids(&["a"]));
}

#[test]
fn a_renamed_log_is_read_to_its_end_before_the_new_one() {
    let (folder, path) = place();
    let mut tail = Tail::new(path.clone(), None);
    write(&path, &line("a"));
    read(&mut tail);
    write(&path, &line("b"));
    let renamed = folder.path().join("sessions.json.1");
    fs::rename(&path, &renamed).unwrap();
    assert_eq!(read(&mut tail), ids(&["b"]));
    // Envoy goes on writing to the old file until it reopens its logs.
    write(&renamed, &line("c"));
    write(&path, &line("d"));
    assert_eq!(read(&mut tail), ids(&["c", "d"]));
}

#[test]
fn a_log_that_was_cut_is_read_from_its_beginning() {
    let (_folder, path) = place();
    write(&path, &line("before"));
    let mut tail = Tail::new(path.clone(), None);
    read(&mut tail);
    fs::write(&path, b"").unwrap();
    assert_eq!(read(&mut tail), ids(&[]));
    write(&path, &line("a"));
    assert_eq!(read(&mut tail), ids(&["a"]));
}

#[test]
fn the_next_reader_goes_on_where_the_last_one_left_off() {
    let (folder, path) = place();
    write(&path, &line("a"));
    let mut first = Tail::new(path.clone(), None);
    read(&mut first);
    write(&path, &line("b"));
    let half = line("c");
    write(&path, &half[..10]);
    assert_eq!(read(&mut first), ids(&["b"]));
    let position = first.position().unwrap();
    drop(first);
    write(&path, &half[10..]);
    let mut second = Tail::new(path.clone(), Some(position));
    assert_eq!(read(&mut second), ids(&["c"]), "the half line is read again, whole");
    // Rotated while nobody read.
    let position = second.position().unwrap();
    drop(second);
    write(&path, &line("d"));
    fs::rename(&path, folder.path().join("sessions.json.1")).unwrap();
    write(&path, &line("e"));
    let mut third = Tail::new(path.clone(), Some(position));
    assert_eq!(read(&mut third), ids(&["d", "e"]));
    // And the old one deleted: what is left is read.
    let gone = Position { inode: u64::MAX, ..position };
    assert_eq!(read(&mut Tail::new(path, Some(gone))), ids(&["e"]));
}

#[test]
fn a_line_without_an_end_costs_itself_only() {
    let (_folder, path) = place();
    let mut tail = Tail::new(path.clone(), None);
    read(&mut tail);
    write(&path, &vec![b'x'; 1_000_000]);
    assert_eq!(read(&mut tail), ids(&[]));
    write(&path, b"y\n");
    write(&path, &line("a"));
    assert_eq!(read(&mut tail), (vec!["a".to_owned()], 1));
    let mut again = Tail::new(path.clone(), tail.position());
    write(&path, &line("b"));
    assert_eq!(read(&mut again), ids(&["b"]), "and the position after it is right");
}

proptest! {
    /// Each complete line is reported once, however it is written and read.
    #[test]
    fn no_line_is_lost_or_reported_twice(pieces in proptest::collection::vec((1..200_usize, any::<bool>()), 1..40)) {
        let (_folder, path) = place();
        let mut tail = Tail::new(path.clone(), None);
        read(&mut tail);
        let real = include_bytes!("../samples/sessions.json");
        let mut rest: &[u8] = real;
        let mut seen = Vec::new();
        for (length, restart) in pieces {
            let (piece, after) = rest.split_at(length.min(rest.len()));
            write(&path, piece);
            rest = after;
            seen.extend(read(&mut tail).0);
            if restart {
                tail = Tail::new(path.clone(), tail.position());
            }
        }
        write(&path, rest);
        seen.extend(read(&mut tail).0);
        let events = lines().map(|line| from_json(line).unwrap());
        let all: Vec<_> = events.map(|event| event.id.to_string()).collect();
        prop_assert_eq!(seen, all);
    }
}
