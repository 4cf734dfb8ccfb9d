//! Reading `show sess all`: a dump made of what each version of HAProxy really prints, with
//! as many sessions as a busy proxy has.

use std::{
    fmt::Write,
    hint::black_box,
    time::{Duration, Instant},
};

use haproxy::show_sess::{Parser, Session, resolve};

use super::{Error, Measurement, Report};

const SAMPLES: [(&str, &str); 2] = [
    ("2.6", include_str!("../../../haproxy/tests/data/2.6-show-sess-all.txt")),
    ("3.2", include_str!("../../../haproxy/tests/data/3.2-show-sess-all.txt")),
];

const SESSIONS: usize = 10_000;

/// Bytes that come from the socket at once.
const PIECE: usize = 16 * 1_024;

pub(super) fn run(quick: bool, report: &mut Report) -> Result<(), Error> {
    let patience = Duration::from_millis(if quick { 300 } else { 2_000 });
    for (version, sample) in SAMPLES {
        let dump = dump(sample)
            .ok_or_else(|| Error::Unexpected(format!("the sample of {version} is not as expected")))?;
        let mut best = Duration::MAX;
        let began = Instant::now();
        while began.elapsed() < patience {
            let one = Instant::now();
            let sessions = black_box(read(black_box(dump.as_bytes())));
            best = best.min(one.elapsed());
            if sessions.len() != SESSIONS {
                return Err(Error::Unexpected(format!(
                    "{} of {SESSIONS} sessions were read",
                    sessions.len()
                )));
            }
        }
        let seconds = best.as_secs_f64();
        let rate = dump.len() as f64 / seconds / 1e6;
        report.tell(&Measurement::new(format!("show_sess_{version}_rate"), rate, "MB/s"))?;
        let each = seconds * 1e9 / SESSIONS as f64;
        report.tell(&Measurement::new(format!("show_sess_{version}_session"), each, "ns/session"))?;
    }
    Ok(())
}

/// As the agent reads it: piece by piece, then the ages.
fn read(dump: &[u8]) -> Vec<Session> {
    let mut parser = Parser::new();
    let mut entries = Vec::new();
    for piece in dump.chunks(PIECE) {
        parser.push(piece, |entry| entries.push(entry));
    }
    entries.extend(parser.finish());
    resolve(entries)
}

/// The sample's session again and again, each with a pointer, a number and ports of its own,
/// and the asking connection last.
fn dump(sample: &str) -> Option<String> {
    let (session, asking) = sample.split_at(sample.rfind("\n0x")? + 1);
    let (pointer, rest) = session.split_once(':')?;
    let (before_id, rest) = rest.split_once(" id=0 ")?;
    let (before_source, rest) = rest.split_once("source=127.0.0.1:")?;
    let (_, rest) = rest.split_once('\n')?;
    let (before_outgoing, rest) = rest.split_once("  backend=")?;
    let (backend, rest) = rest.split_once("addr=127.0.0.1:")?;
    let (_, rest) = rest.split_once('\n')?;
    let width = pointer.len() - 2;
    let mut dump = String::with_capacity((session.len() + 8) * SESSIONS + asking.len());
    for number in 0..SESSIONS {
        let (source, outgoing) = (20_000 + number, 40_000 + number);
        // Writing to a string does not fail.
        let _ = write!(
            dump,
            "0x{:0width$x}:{before_id} id={number} {before_source}source=127.0.0.1:{source}\n\
             {before_outgoing}  backend={backend}addr=127.0.0.1:{outgoing}\n{rest}",
            0x7f00_0000_usize + number * 0x400,
        );
    }
    dump.push_str(asking);
    Some(dump)
}
