//! Packets on a stream: a length of three bytes, a sequence number, and the payload. A payload of
//! 16 MiB or more is split.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::{Malformed, WireError, answer::ERROR};

/// A packet of this size is continued by the next one.
const FULL_PIECE: usize = 0xff_ffff;

/// A stream that is read and written packet by packet.
#[derive(Debug)]
pub(in crate::mysql) struct Packets<S> {
    stream: S,
    /// The sequence number of the next packet, from either side.
    number: u8,
}

impl<S> Packets<S> {
    pub(super) fn stream(&self) -> &S {
        &self.stream
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Packets<S> {
    pub(in crate::mysql) fn new(stream: S) -> Self {
        Self { stream, number: 0 }
    }

    /// Continues the numbering of another stream: TLS begins in the middle of a login.
    pub(in crate::mysql) fn counting_from(stream: S, number: u8) -> Self {
        Self { stream, number }
    }

    /// The sequence number of the next packet.
    pub(in crate::mysql) fn number(&self) -> u8 {
        self.number
    }

    /// Begins a command, which restarts the numbering.
    pub(super) fn begin(&mut self) {
        self.number = 0;
    }

    /// The payload of the next packet, of at most `most` bytes.
    ///
    /// Reads no byte beyond it, and allocates nothing for bytes that have not arrived.
    ///
    /// A server that closes a connection may send the reason before it reads the next command.
    /// That error has sequence number 0, where the response to a command has 1.
    pub(in crate::mysql) async fn read(&mut self, most: usize) -> Result<Vec<u8>, WireError> {
        const OUT_OF_ORDER: WireError = WireError::Malformed(Malformed("a packet out of its order"));
        let mut payload = Vec::new();
        let mut last_word = false;
        loop {
            let mut header = [0; 4];
            self.stream.read_exact(&mut header).await.map_err(WireError::Lost)?;
            let [low, middle, high, number] = header;
            if number == self.number {
                self.number = self.number.wrapping_add(1);
            } else if (number, self.number) == (0, 1) {
                last_word = true;
            } else {
                return Err(OUT_OF_ORDER);
            }
            let length = u32::from_le_bytes([low, middle, high, 0]) as usize;
            if payload.len() + length > most {
                return Err(Malformed("a packet larger than any expected here").into());
            }
            let read = (&mut self.stream).take(length as u64).read_to_end(&mut payload).await;
            if read.map_err(WireError::Lost)? < length {
                return Err(WireError::Lost(io::ErrorKind::UnexpectedEof.into()));
            }
            if length < FULL_PIECE {
                return if last_word && payload.first() != Some(&ERROR) {
                    Err(OUT_OF_ORDER)
                } else {
                    Ok(payload)
                };
            }
        }
    }

    /// Writes one payload and flushes.
    pub(in crate::mysql) async fn write(&mut self, payload: &[u8]) -> Result<(), WireError> {
        let mut rest = payload;
        loop {
            let (piece, behind) = rest.split_at(rest.len().min(FULL_PIECE));
            // Header and payload together: one segment, one TLS record.
            let mut bytes = Vec::with_capacity(piece.len() + 4);
            bytes.extend((piece.len() as u64).to_le_bytes().iter().take(3));
            bytes.push(self.number);
            bytes.extend_from_slice(piece);
            self.number = self.number.wrapping_add(1);
            self.stream.write_all(&bytes).await.map_err(WireError::Lost)?;
            rest = behind;
            if piece.len() < FULL_PIECE {
                break;
            }
        }
        self.stream.flush().await.map_err(WireError::Lost)
    }

    pub(super) async fn shut_down(mut self) {
        // An error would change nothing.
        let _ = self.stream.shutdown().await;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokio::io::{AsyncReadExt as _, duplex};

    use super::*;
    use crate::mysql::wire::testing::{feed, run};

    const MOST: usize = 64 << 20;

    #[test]
    fn large_payloads_come_in_pieces() {
        for size in [0, 1, FULL_PIECE - 1, FULL_PIECE, FULL_PIECE + 1, 2 * FULL_PIECE] {
            let payload: Vec<u8> = (0..=250).cycle().take(size).collect();
            run(async {
                let (ours, theirs) = duplex(1 << 16);
                let (mut ours, mut theirs) = (Packets::new(ours), Packets::new(theirs));
                let (written, read) = tokio::join!(ours.write(&payload), theirs.read(MOST));
                written.unwrap();
                assert!(read.unwrap() == payload, "{size} bytes came back as others");
                assert_eq!(ours.number, theirs.number);
            });
        }
    }

    #[test]
    fn a_token_of_any_size_is_one_packet_of_exactly_its_bytes() {
        let payload = vec![b't'; 3_500];
        run(async {
            let (ours, mut theirs) = duplex(1 << 16);
            let mut ours = Packets { stream: ours, number: 4 };
            ours.write(&payload).await.unwrap();
            drop(ours);
            let mut bytes = Vec::new();
            theirs.read_to_end(&mut bytes).await.unwrap();
            assert_eq!(&bytes[..4], [0xac, 0x0d, 0, 4]);
            assert_eq!(&bytes[4..], &payload[..]);
        });
    }

    #[test]
    fn memory_is_allocated_only_for_bytes_that_arrived() {
        run(async {
            let mut packets = Packets::new(feed(&[0xfe, 0xff, 0xff, 0, 1, 2, 3]));
            assert!(matches!(packets.read(MOST).await, Err(WireError::Lost(_))));
            let mut packets = Packets::new(feed(&[0xfe, 0xff, 0xff, 0]));
            assert!(matches!(packets.read(65_536).await, Err(WireError::Malformed(_))));
        });
    }

    #[test]
    fn packets_keep_their_order() {
        run(async {
            let mut packets = Packets::new(feed(&[1, 0, 0, 0, 7, 1, 0, 0, 2, 7]));
            assert_eq!(packets.read(MOST).await.unwrap(), [7]);
            let error = packets.read(MOST).await.unwrap_err();
            assert!(error.to_string().contains("out of its order"), "{error}");
        });
    }

    #[test]
    fn an_error_may_arrive_before_the_command() {
        let error = b"\x03\0\0\0\xff\x87\x07";
        let read = |bytes: &'static [u8], number| {
            run(async { Packets::counting_from(feed(bytes), number).read(MOST).await.ok() })
        };
        assert_eq!(read(error, 1), Some(vec![0xff, 0x87, 0x07]));
        // Only an error, and only instead of a response.
        assert_eq!(read(b"\x03\0\0\0\x00\x00\x00", 1), None);
        assert_eq!(read(error, 2), None);
        assert_eq!(read(b"\x03\0\0\x02\xff\x87\x07", 1), None);
    }

    proptest! {
        #[test]
        fn a_truncated_packet_is_a_lost_connection(
            payload in proptest::collection::vec(any::<u8>(), 0..300),
            cut in 1_usize..304,
        ) {
            let mut bytes = vec![0; 4];
            bytes[..2].copy_from_slice(&u16::try_from(payload.len()).unwrap().to_le_bytes());
            bytes.extend_from_slice(&payload);
            let kept = bytes.len().saturating_sub(cut);
            run(async {
                let read = Packets::new(feed(&bytes[..kept])).read(MOST).await;
                assert!(matches!(read, Err(WireError::Lost(_))), "{read:?}");
            });
        }

        #[test]
        fn no_more_than_one_packet_is_read(
            payload in proptest::collection::vec(any::<u8>(), 0..300),
            behind in proptest::collection::vec(any::<u8>(), 0..50),
        ) {
            run(async {
                let (ours, theirs) = duplex(1 << 16);
                let mut ours = Packets::new(ours);
                ours.write(&payload).await.unwrap();
                ours.stream.write_all(&behind).await.unwrap();
                drop(ours);
                let mut theirs = Packets::new(theirs);
                assert_eq!(theirs.read(MOST).await.unwrap(), payload);
                let mut rest = Vec::new();
                theirs.stream.read_to_end(&mut rest).await.unwrap();
                assert_eq!(rest, behind);
            });
        }
    }
}
