//! Results of real and of hostile servers.

use proptest::prelude::*;

use super::*;
use crate::mysql::wire::{
    cursor::put_counted,
    testing::{feed, packet, run},
};

const MOST: usize = 1 << 20;

fn column(name: &[u8]) -> Vec<u8> {
    let mut packet = Vec::new();
    for text in [b"def", &b""[..], b"t", b"t", name, name, &[0x2d, 0, 4, 0, 0, 0, 0xfd, 0, 0, 0, 0, 0]] {
        put_counted(&mut packet, text);
    }
    packet
}

fn row(cells: &[Option<Vec<u8>>]) -> Vec<u8> {
    let mut packet = Vec::new();
    for cell in cells {
        match cell {
            Some(text) => put_counted(&mut packet, text),
            None => packet.push(NULL),
        }
    }
    packet
}

/// The payloads of one result.
fn result(names: &[&str], rows: &[Vec<Option<Vec<u8>>>], more: bool) -> Vec<Vec<u8>> {
    let mut payloads = vec![vec![u8::try_from(names.len()).unwrap()]];
    payloads.extend(names.iter().map(|name| column(name.as_bytes())));
    payloads.push(vec![0xfe, 0, 0, 2, 0]);
    payloads.extend(rows.iter().map(|cells| row(cells)));
    payloads.push(vec![0xfe, 0, 0, if more { 0x0a } else { 2 }, 0]);
    payloads
}

fn on_the_wire(payloads: &[Vec<u8>]) -> Vec<u8> {
    (0_u8..=255).cycle().zip(payloads).flat_map(|(number, payload)| packet(number, payload)).collect()
}

fn read(bytes: &[u8]) -> Result<Answered, WireError> {
    run(async { read_all(&mut Packets::new(feed(bytes)), MOST).await })
}

#[expect(clippy::unnecessary_wraps, reason = "a cell")]
fn some(text: &str) -> Option<Vec<u8>> {
    Some(text.as_bytes().to_vec())
}

const REFUSED: &[u8] = b"\xff\x46\x04#HY000Unknown thread id: 7";

#[test]
fn several_results_come_in_one_round_trip() {
    let payloads = [
        vec![vec![0, 2, 0, 0x0a, 0, 0, 0]],
        result(&["id", "host"], &[vec![some("7"), None], vec![some("8"), some("10.0.2.7:50412")]], true),
        result(&["now"], &[], false),
    ]
    .concat();
    let answered = read(&on_the_wire(&payloads)).unwrap();
    assert_eq!(answered.refused, None);
    let [done, rows, empty] = &answered.results[..] else { panic!("{answered:?}") };
    assert_eq!((done.affected, done.columns.len(), done.rows.len()), (2, 0, 0));
    assert_eq!(rows.columns, ["id", "host"]);
    assert_eq!(
        (rows.cell(0, 0), rows.cell(0, 1), rows.cell(1, 1)),
        (Some("7"), None, Some("10.0.2.7:50412"))
    );
    assert_eq!((rows.cell(2, 0), rows.cell(0, 2)), (None, None));
    assert_eq!((&empty.columns[..], empty.rows.len()), (&["now".to_owned()][..], 0));
}

#[test]
fn an_error_keeps_the_results_before_it() {
    let payloads = [result(&["id"], &[vec![some("7")]], true), vec![REFUSED.to_vec()]].concat();
    let answered = read(&on_the_wire(&payloads)).unwrap();
    assert_eq!(answered.results.len(), 1);
    assert_eq!(answered.refused.unwrap().number, 1094);

    // In the middle of the rows: that result is discarded.
    let mut payloads = result(&["id"], &[vec![some("7")]], false);
    *payloads.last_mut().unwrap() = REFUSED.to_vec();
    let answered = read(&on_the_wire(&payloads)).unwrap();
    assert!(answered.results.is_empty() && answered.refused.is_some());
}

#[test]
fn a_local_file_is_never_sent() {
    let error = read(&packet(0, b"\xfb/etc/passwd")).unwrap_err();
    assert!(error.to_string().contains("a local file of the client"), "{error}");
}

#[test]
fn invalid_utf8_counts_at_its_replaced_size() {
    let cell = |length: usize| on_the_wire(&result(&["c"], &[vec![Some(vec![0xff; length])]], false));
    let answered = read(&cell(MOST / 4)).unwrap();
    assert_eq!(answered.results[0].cell(0, 0).map(str::len), Some(MOST / 4 * 3));
    let error = read(&cell(MOST / 2)).unwrap_err();
    assert!(error.to_string().contains("larger than any expected"), "{error}");
}

#[test]
fn a_result_is_bounded() {
    // Many small rows take more memory than their bytes.
    let rows = vec![vec![None; 200]; 300];
    let names = ["c"; 200];
    let bytes = on_the_wire(&result(&names, &rows, false));
    assert!(bytes.len() < MOST / 2);
    let error = read(&bytes).unwrap_err();
    assert!(error.to_string().contains("larger than any expected"), "{error}");
    // So do results without rows.
    let bytes = on_the_wire(&vec![vec![0, 0, 0, 0x0a, 0, 0, 0]; 30_000]);
    assert!(matches!(read(&bytes), Err(WireError::Malformed(_))));
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = parse_count(&bytes);
        let _ = parse_column(&bytes, &mut Allowance(MOST));
        let _ = parse_row(&bytes, bytes.len() % 7, &mut Allowance(MOST));
        let _ = read(&bytes);
        let _ = read(&packet(0, &bytes));
    }

    #[test]
    fn rows_come_back_as_they_were(
        rows in proptest::collection::vec(
            proptest::collection::vec(proptest::option::of("\\PC{0,300}"), 3),
            0..20,
        ),
        cut in 1_usize..1_000,
    ) {
        let cells: Vec<Vec<Option<Vec<u8>>>> = rows
            .iter()
            .map(|row| row.iter().map(|cell| cell.clone().map(String::into_bytes)).collect())
            .collect();
        let bytes = on_the_wire(&result(&["a", "b", "c"], &cells, false));
        let answered = read(&bytes).unwrap();
        prop_assert_eq!(&answered.results[0].rows, &rows);
        // Truncated anywhere, it is not a result.
        let kept = bytes.len().saturating_sub(cut);
        prop_assert!(matches!(read(&bytes[..kept]), Err(WireError::Lost(_))));
    }

    /// One changed byte never causes a panic or more cells than columns.
    #[test]
    fn a_damaged_answer_keeps_its_shape(at in 0_usize..400, byte: u8) {
        let rows = vec![vec![some("7"), None, some("10.0.2.7:50412")]; 4];
        let mut bytes = on_the_wire(&result(&["id", "user", "host"], &rows, false));
        let at = at % bytes.len();
        bytes[at] = byte;
        if let Ok(answered) = read(&bytes) {
            for result in &answered.results {
                prop_assert!(result.rows.iter().all(|row| row.len() == result.columns.len()));
            }
        }
    }

    #[test]
    fn a_row_has_exactly_its_cells(cells in proptest::collection::vec(proptest::option::of(".{0,20}"), 1..8)) {
        let cells: Vec<_> = cells.into_iter().map(|cell| cell.map(String::into_bytes)).collect();
        let bytes = row(&cells);
        let mut left = Allowance(MOST);
        prop_assert_eq!(parse_row(&bytes, cells.len(), &mut left).unwrap().len(), cells.len());
        prop_assert!(parse_row(&bytes, cells.len() + 1, &mut left).is_err());
        prop_assert!(parse_row(&bytes, cells.len() - 1, &mut left).is_err());
    }
}
