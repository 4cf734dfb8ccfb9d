//! Results of statements in the text protocol.

use tokio::io::{AsyncRead, AsyncWrite};

use super::{
    Answered, Malformed, ResultSet, ServerError, WireError,
    answer::{Done, END, ERROR, LONGEST_END, OK, parse_end},
    cursor::Cursor,
    packets::Packets,
};

/// MySQL's own limit.
const MOST_COLUMNS: u64 = 4_096;

/// A request for a local file, which is never answered.
const LOCAL_FILE: u8 = 0xfb;

/// A NULL in a row.
const NULL: u8 = 0xfb;

/// The approximate memory of a cell, a row or a result, besides its text.
const PER_ITEM: usize = 32;

/// Reads all results of one command, of at most `most` bytes in memory.
pub(super) async fn read_all<S: AsyncRead + AsyncWrite + Unpin>(
    packets: &mut Packets<S>,
    most: usize,
) -> Result<Answered, WireError> {
    let mut answered = Answered::default();
    let mut left = Allowance(most);
    loop {
        let packet = packets.read(left.0).await?;
        left.spend(packet.len() + PER_ITEM)?;
        let more = match packet.first() {
            Some(&OK) => {
                let done = Done::parse(&packet)?;
                answered.results.push(ResultSet { affected: done.affected, ..ResultSet::default() });
                done.more_results
            }
            Some(&ERROR) => {
                answered.refused = Some(ServerError::parse(&packet)?);
                false
            }
            Some(&LOCAL_FILE) => return Err(Malformed("a request for a local file of the client").into()),
            _ => match read_rows(packets, &packet, &mut left).await? {
                Ok((result, more)) => {
                    answered.results.push(result);
                    more
                }
                Err(refused) => {
                    answered.refused = Some(refused);
                    false
                }
            },
        };
        if !more {
            return Ok(answered);
        }
    }
}

/// Columns and rows after the packet with the number of columns. An error may come in the middle
/// of the rows.
async fn read_rows<S: AsyncRead + AsyncWrite + Unpin>(
    packets: &mut Packets<S>,
    count: &[u8],
    left: &mut Allowance,
) -> Result<Result<(ResultSet, bool), ServerError>, WireError> {
    let count = parse_count(count)?;
    let mut result = ResultSet::default();
    for _ in 0..count {
        let packet = packets.read(left.0).await?;
        left.spend(packet.len() + PER_ITEM)?;
        result.columns.push(parse_column(&packet, left)?);
    }
    let packet = packets.read(left.0).await?;
    parse_end(&packet)?;
    loop {
        let packet = packets.read(left.0).await?;
        match packet.first() {
            Some(&END) if packet.len() <= LONGEST_END => return Ok(Ok((result, parse_end(&packet)?))),
            Some(&ERROR) => return Ok(Err(ServerError::parse(&packet)?)),
            _ => {
                left.spend(packet.len() + PER_ITEM * (count + 1))?;
                result.rows.push(parse_row(&packet, count, left)?);
            }
        }
    }
}

/// The memory that is left, in bytes.
struct Allowance(usize);

impl Allowance {
    fn spend(&mut self, bytes: usize) -> Result<(), Malformed> {
        self.0 = self.0.checked_sub(bytes).ok_or(Malformed("a result larger than any expected"))?;
        Ok(())
    }
}

fn parse_count(packet: &[u8]) -> Result<usize, Malformed> {
    let mut cursor = Cursor::new(packet);
    let count = cursor.length_encoded()?;
    cursor.end()?;
    if !(1..=MOST_COLUMNS).contains(&count) {
        return Err(Malformed("an impossible number of columns"));
    }
    usize::try_from(count).map_err(|_| Malformed("an impossible number of columns"))
}

/// The name of a column, from its definition packet.
fn parse_column(packet: &[u8], left: &mut Allowance) -> Result<String, Malformed> {
    let mut cursor = Cursor::new(packet);
    if cursor.counted()? != b"def" {
        return Err(Malformed("not the description of a column"));
    }
    let _schema = cursor.counted()?;
    let _table = cursor.counted()?;
    let _table_itself = cursor.counted()?;
    let name = cursor.counted()?;
    let _name_itself = cursor.counted()?;
    // Character set, width, type, flags, decimals: not needed in the text protocol.
    if cursor.counted()?.len() != 12 {
        return Err(Malformed("not the description of a column"));
    }
    cursor.end()?;
    text(name, left)
}

fn parse_row(packet: &[u8], columns: usize, left: &mut Allowance) -> Result<Vec<Option<String>>, Malformed> {
    let mut cursor = Cursor::new(packet);
    let mut row = Vec::with_capacity(columns);
    for _ in 0..columns {
        if cursor.peek() == Some(NULL) {
            cursor.take(1)?;
            row.push(None);
        } else {
            row.push(Some(text(cursor.counted()?, left)?));
        }
    }
    cursor.end()?;
    Ok(row)
}

/// Invalid UTF-8 grows to three bytes per sequence. The original bytes were accounted for with
/// their packet.
fn text(bytes: &[u8], left: &mut Allowance) -> Result<String, Malformed> {
    let of_chunk = |valid: &str, invalid: &[u8]| {
        valid.len() + if invalid.is_empty() { 0 } else { char::REPLACEMENT_CHARACTER.len_utf8() }
    };
    let length: usize = bytes.utf8_chunks().map(|chunk| of_chunk(chunk.valid(), chunk.invalid())).sum();
    left.spend(length.saturating_sub(bytes.len()))?;
    Ok(String::from_utf8_lossy(bytes).into_owned())
}

#[cfg(test)]
mod tests;
