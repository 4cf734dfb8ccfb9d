//! The tail of the JSON file log: what Envoys said while the agent was away.
//!
//! Whole lines only; a line that is too long is skipped and counted. A log that was
//! renamed is read to its end before the new one is begun, also when that happened
//! while the agent did not read; a truncated file is read from its beginning.
//!
//! Envoy writes the file with a delay of its own (`--file-flush-interval-msec`, 10 s
//! unless set), so the gRPC log is always ahead of it.

use std::{
    fs::{self, File, Metadata},
    io::{self, Read, Seek, SeekFrom},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::{Event, Skipped, entry::from_json};

/// No line of the shipped format comes near this.
const MAX_LINE: usize = 16 * 1024;

/// The number of bytes that one read takes.
const CHUNK: usize = 64 * 1024;

/// Where reading has come to.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    pub device: u64,
    /// The file itself, whatever it is called by now.
    pub inode: u64,
    /// Bytes of whole lines read.
    pub offset: u64,
}

#[derive(Debug, Default)]
pub struct Lines {
    /// The events, in order.
    pub events: Vec<Event>,
    /// Lines that are no events, and why.
    pub skipped: Vec<Skipped>,
    /// Whether there is more to read now.
    pub more: bool,
}

/// A log that is being followed.
#[derive(Debug)]
pub struct Tail {
    path: PathBuf,
    /// What it was asked to go on from, until a file is open.
    from: Begin,
    open: Option<Open>,
}

/// Where to begin in a file that is met for the first time.
#[derive(Copy, Clone, Debug)]
enum Begin {
    /// Where the last reader left off.
    Position(Position),
    /// What is there already is of no interest.
    End,
    /// It appeared meanwhile: all of it is news.
    Beginning,
}

#[derive(Debug)]
struct Open {
    file: File,
    position: Position,
    /// The beginning of a line whose end has not come yet.
    line: Vec<u8>,
    /// Inside a line that is too long.
    skipping: bool,
}

impl Tail {
    /// Follows the log at `path` from where the last reader left off, or from its end.
    pub fn new(path: PathBuf, from: Option<Position>) -> Self {
        Self { path, from: from.map_or(Begin::End, Begin::Position), open: None }
    }

    /// Where reading has come to; `None` before the first file.
    pub fn position(&self) -> Option<Position> {
        self.open.as_ref().map(|open| open.position)
    }

    /// Reads on, a bounded piece. Blocks on the disk only. A log that is not there has nothing to say.
    pub fn read(&mut self) -> io::Result<Lines> {
        if self.open.is_none() {
            self.open = self.find()?;
        }
        let mut lines = Lines::default();
        let Some(open) = &mut self.open else { return Ok(lines) };
        let read = open.read(&mut lines)?;
        if read > 0 {
            lines.more = true;
            return Ok(lines);
        }
        // At the end: has another file taken its name?
        match fs::metadata(&self.path) {
            Ok(now) if !open.is(&now) => {
                self.open = None;
                self.from = Begin::Beginning;
                lines.more = true;
            }
            // Renamed, and the new one is not there yet; or not to be seen for a moment.
            Ok(_) | Err(_) => {}
        }
        Ok(lines)
    }

    fn find(&mut self) -> io::Result<Option<Open>> {
        let open = match self.from {
            Begin::Position(position) => match self.left_off(position)? {
                Some(open) => Some(open),
                // The file that was read is gone: whatever is there now is news.
                None => Open::at(&self.path, |_| 0)?,
            },
            Begin::End => Open::at(&self.path, Metadata::len)?,
            Begin::Beginning => Open::at(&self.path, |_| 0)?,
        };
        // A file that comes into being later is news from its first line.
        self.from = Begin::Beginning;
        Ok(open)
    }

    /// The file that was read, under whatever name beside the log.
    fn left_off(&self, position: Position) -> io::Result<Option<Open>> {
        let folder = self.path.parent().map(fs::read_dir);
        let beside = folder.into_iter().flatten().flatten().flatten().map(|entry| entry.path());
        for path in std::iter::once(self.path.clone()).chain(beside) {
            let same = fs::metadata(&path)
                .is_ok_and(|found| found.dev() == position.device && found.ino() == position.inode);
            if same {
                return Open::at(
                    &path,
                    |found| if found.len() < position.offset { 0 } else { position.offset },
                );
            }
        }
        Ok(None)
    }
}

impl Open {
    fn at(path: &Path, offset: impl Fn(&Metadata) -> u64) -> io::Result<Option<Self>> {
        let mut file = match File::open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            file => file?,
        };
        let found = file.metadata()?;
        let position = Position { device: found.dev(), inode: found.ino(), offset: offset(&found) };
        file.seek(SeekFrom::Start(position.offset))?;
        Ok(Some(Self { file, position, line: Vec::new(), skipping: false }))
    }

    fn is(&self, found: &Metadata) -> bool {
        found.dev() == self.position.device && found.ino() == self.position.inode
    }

    fn read(&mut self, lines: &mut Lines) -> io::Result<usize> {
        if self.file.metadata()?.len() < self.position.offset + self.line.len() as u64 {
            self.file.seek(SeekFrom::Start(0))?;
            (self.position.offset, self.skipping) = (0, false);
            self.line.clear();
        }
        let mut chunk = vec![0; CHUNK];
        let read = self.file.read(&mut chunk)?;
        chunk.truncate(read);
        for piece in chunk.split_inclusive(|byte| *byte == b'\n') {
            self.piece(piece, lines);
        }
        Ok(read)
    }

    /// A line, its beginning, or its end.
    fn piece(&mut self, piece: &[u8], lines: &mut Lines) {
        let (text, whole) = match piece.split_last() {
            Some((b'\n', text)) => (text, true),
            _ => (piece, false),
        };
        // An offset inside a line that is too long is as good as one at its beginning.
        if self.skipping || self.line.len() + text.len() > MAX_LINE {
            self.position.offset += (self.line.len() + piece.len()) as u64;
            self.line.clear();
            if whole {
                lines.skipped.push(Skipped::NotAnEntry);
            }
            self.skipping = !whole;
            return;
        }
        self.line.extend_from_slice(text);
        if !whole {
            return;
        }
        self.position.offset += self.line.len() as u64 + 1;
        match from_json(&self.line) {
            Ok(event) => lines.events.push(event),
            Err(skipped) => lines.skipped.push(skipped),
        }
        self.line.clear();
    }
}
