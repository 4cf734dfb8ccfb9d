//! The packets of the protocol: framing, and reading their fields.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::Error;

/// Anything that packets can go through.
pub(super) trait Wire: AsyncRead + AsyncWrite + Unpin + Send + Sync {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send + Sync> Wire for S {}

/// A payload of this length is followed by more of it.
const LARGEST: usize = 0xff_ffff;

/// Packets over a stream, numbered as the protocol wants it.
pub(super) struct Packets {
    pub(super) wire: Box<dyn Wire>,
    sequence: u8,
}

impl Packets {
    pub(super) fn new(wire: Box<dyn Wire>) -> Self {
        Self { wire, sequence: 0 }
    }

    /// The same conversation over another stream: TLS over the first.
    pub(super) fn over(self, wire: Box<dyn Wire>) -> Self {
        Self { wire, ..self }
    }

    /// A command starts a new count.
    pub(super) fn restart(&mut self) {
        self.sequence = 0;
    }

    pub(super) async fn send(&mut self, payload: &[u8]) -> Result<(), Error> {
        let mut bytes = Vec::with_capacity(payload.len() + 4);
        let mut rest = payload;
        loop {
            let (part, after) = rest.split_at(rest.len().min(LARGEST));
            let [low, middle, high, _] = u32::try_from(part.len()).unwrap_or(u32::MAX).to_le_bytes();
            bytes.extend_from_slice(&[low, middle, high, self.sequence]);
            bytes.extend_from_slice(part);
            self.sequence = self.sequence.wrapping_add(1);
            rest = after;
            if part.len() < LARGEST {
                break;
            }
        }
        self.wire.write_all(&bytes).await?;
        self.wire.flush().await?;
        Ok(())
    }

    /// The next payload; an error packet is an [`Error::Server`].
    pub(super) async fn receive(&mut self) -> Result<Vec<u8>, Error> {
        let mut payload = Vec::new();
        loop {
            let mut header = [0; 4];
            self.wire.read_exact(&mut header).await?;
            let [low, middle, high, sequence] = header;
            self.sequence = sequence.wrapping_add(1);
            let length = usize::from(low) | usize::from(middle) << 8 | usize::from(high) << 16;
            let begin = payload.len();
            payload.resize(begin + length, 0);
            self.wire.read_exact(payload.get_mut(begin..).unwrap_or_default()).await?;
            if length < LARGEST {
                break;
            }
        }
        match payload.first() {
            Some(0xff) => Err(refusal(payload.get(1..).unwrap_or_default())),
            Some(_) => Ok(payload),
            None => Err(Error::Protocol("an empty packet")),
        }
    }

    /// Waits until the server has closed the connection.
    pub(super) async fn closed(&mut self) -> io::Result<()> {
        let mut rest = Vec::new();
        match self.wire.read_to_end(&mut rest).await {
            // Servers skip the farewell of TLS.
            Err(error) if error.kind() != io::ErrorKind::UnexpectedEof => Err(error),
            _ => Ok(()),
        }
    }
}

fn refusal(rest: &[u8]) -> Error {
    let mut fields = Fields(rest);
    let Ok(code) = fields.number(2) else { return Error::Protocol("an error packet that is cut off") };
    let state = match fields.0.split_first() {
        Some((b'#', marked)) if marked.len() >= 5 => {
            let (state, message) = marked.split_at(5);
            fields.0 = message;
            String::from_utf8_lossy(state).into_owned()
        }
        _ => "HY000".to_owned(),
    };
    let message = String::from_utf8_lossy(fields.0).into_owned();
    Error::Server { code: u16::try_from(code).unwrap_or(u16::MAX), state, message }
}

/// The fields of a payload, from first to last.
pub(super) struct Fields<'a>(pub(super) &'a [u8]);

impl<'a> Fields<'a> {
    pub(super) fn take(&mut self, length: usize) -> Result<&'a [u8], Error> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or(Error::Protocol("a packet is cut off"))?;
        self.0 = rest;
        Ok(taken)
    }

    /// Little end first, of at most eight bytes.
    pub(super) fn number(&mut self, length: usize) -> Result<u64, Error> {
        Ok(self.take(length)?.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte)))
    }

    /// Up to the next NUL, or all that is left.
    pub(super) fn text(&mut self) -> &'a [u8] {
        let mut parts = self.0.splitn(2, |byte| *byte == 0);
        let text = parts.next().unwrap_or_default();
        self.0 = parts.next().unwrap_or_default();
        text
    }

    /// A number in front of which its length is said; `None` is NULL.
    pub(super) fn counted(&mut self) -> Result<Option<u64>, Error> {
        Ok(Some(match self.number(1)? {
            0xfb => return Ok(None),
            0xfc => self.number(2)?,
            0xfd => self.number(3)?,
            0xfe => self.number(8)?,
            small => small,
        }))
    }

    /// Bytes in front of which their length is said; `None` is NULL.
    pub(super) fn bytes(&mut self) -> Result<Option<&'a [u8]>, Error> {
        let Some(length) = self.counted()? else { return Ok(None) };
        let length = usize::try_from(length).map_err(|_| Error::Protocol("a length beyond memory"))?;
        self.take(length).map(Some)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair() -> (Packets, Packets) {
        let (one, other) = tokio::io::duplex(1 << 16);
        (Packets::new(Box::new(one)), Packets::new(Box::new(other)))
    }

    /// A payload whose last part would be full is ended by an empty part.
    #[tokio::test]
    async fn a_payload_of_any_length_arrives_whole() {
        for length in [1, 65_536, LARGEST - 1, LARGEST, LARGEST + 1, 2 * LARGEST] {
            let (mut one, mut other) = pair();
            let payload = vec![7; length];
            let (sent, received) = tokio::join!(one.send(&payload), other.receive());
            sent.unwrap();
            assert!(received.unwrap() == payload, "{length} bytes");
            assert_eq!(one.sequence, other.sequence, "after {length} bytes");
        }
    }

    #[tokio::test]
    async fn an_error_packet_carries_the_servers_message() {
        let (mut one, mut other) = pair();
        one.send(b"\xff\x15\x04#28000Access denied").await.unwrap();
        let said = other.receive().await.unwrap_err();
        assert_eq!(said.to_string(), "1045 (28000): Access denied");
        // Before the greeting there is no SQLSTATE.
        one.send(b"\xffi\x04Host is blocked").await.unwrap();
        assert_eq!(other.receive().await.unwrap_err().to_string(), "1129 (HY000): Host is blocked");
        drop(one);
        assert!(other.receive().await.unwrap_err().is_closed());
    }

    #[test]
    fn fields_end_where_the_payload_ends() {
        let mut fields = Fields(b"\x03abc\xfb\xfc\x02\x00xyname\0rest");
        assert_eq!(fields.bytes().unwrap(), Some(&b"abc"[..]));
        assert_eq!(fields.bytes().unwrap(), None);
        assert_eq!(fields.bytes().unwrap(), Some(&b"xy"[..]));
        assert_eq!(fields.text(), b"name");
        assert_eq!(fields.text(), b"rest");
        assert!(fields.number(1).is_err());
        assert!(Fields(b"\x04abc").bytes().is_err());
        assert!(Fields(b"\xfe\xff\xff\xff\xff\xff\xff\xff\xffabc").bytes().is_err());
    }
}
