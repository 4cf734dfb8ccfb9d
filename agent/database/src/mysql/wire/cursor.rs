//! Strict reading and writing of the fields of packets.
//!
//! A truncated field, an invalid length and leftover bytes are all [`Malformed`].

use std::fmt;

/// How a packet violates the protocol.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Malformed(pub &'static str);

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "not an answer of MySQL: {}", self.0)
    }
}

impl std::error::Error for Malformed {}

/// The unread rest of a packet.
pub struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    pub fn new(packet: &'a [u8]) -> Self {
        Self(packet)
    }

    pub fn take(&mut self, count: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(Malformed("a packet is cut short"))?;
        self.0 = rest;
        Ok(taken)
    }

    /// A little-endian number of `N` bytes, at most 8.
    fn number<const N: usize>(&mut self) -> Result<u64, Malformed> {
        let bytes = self.take(N)?;
        Ok(bytes.iter().rev().fold(0, |number, &byte| number << 8 | u64::from(byte)))
    }

    pub fn u8(&mut self) -> Result<u8, Malformed> {
        // One byte always fits.
        Ok(self.number::<1>()?.to_le_bytes()[0])
    }

    pub fn u16(&mut self) -> Result<u16, Malformed> {
        let [a, b, ..] = self.number::<2>()?.to_le_bytes();
        Ok(u16::from_le_bytes([a, b]))
    }

    pub fn u32(&mut self) -> Result<u32, Malformed> {
        let [a, b, c, d, ..] = self.number::<4>()?.to_le_bytes();
        Ok(u32::from_le_bytes([a, b, c, d]))
    }

    pub fn length_encoded(&mut self) -> Result<u64, Malformed> {
        match self.u8()? {
            0xfc => self.number::<2>(),
            0xfd => self.number::<3>(),
            0xfe => self.number::<8>(),
            0xfb | 0xff => Err(Malformed("a length that is none")),
            small => Ok(u64::from(small)),
        }
    }

    /// A length-encoded string.
    pub fn counted(&mut self) -> Result<&'a [u8], Malformed> {
        let length = self.length_encoded()?;
        self.take(usize::try_from(length).unwrap_or(usize::MAX))
    }

    /// A zero-terminated string.
    pub fn until_zero(&mut self) -> Result<&'a [u8], Malformed> {
        let end = self.0.iter().position(|&byte| byte == 0).ok_or(Malformed("a text without an end"))?;
        let text = self.take(end)?;
        self.take(1)?;
        Ok(text)
    }

    /// The next byte, without consuming it.
    pub fn peek(&self) -> Option<u8> {
        self.0.first().copied()
    }

    pub fn left(&self) -> usize {
        self.0.len()
    }

    pub fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.0)
    }

    /// Fails if bytes are left.
    pub fn end(&self) -> Result<(), Malformed> {
        if self.0.is_empty() { Ok(()) } else { Err(Malformed("a packet is longer than it should be")) }
    }
}

/// Appends a length-encoded integer.
pub(super) fn put_length(packet: &mut Vec<u8>, number: usize) {
    let bytes = (number as u64).to_le_bytes();
    let (mark, count) = match number {
        0..=0xfa => (None, 1),
        0xfb..=0xffff => (Some(0xfc), 2),
        0x1_0000..=0xff_ffff => (Some(0xfd), 3),
        _ => (Some(0xfe), 8),
    };
    packet.extend(mark);
    packet.extend(bytes.iter().take(count));
}

/// Appends a length-encoded string.
pub fn put_counted(packet: &mut Vec<u8>, bytes: &[u8]) {
    put_length(packet, bytes.len());
    packet.extend_from_slice(bytes);
}

/// Text from a server for logs: without control characters, and bounded.
pub(in crate::mysql) fn printable(text: &[u8]) -> String {
    const MOST: usize = 512;
    let text = text.get(..4 * MOST).unwrap_or(text);
    String::from_utf8_lossy(text).chars().take(MOST).map(|c| if c.is_control() { '?' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn lengths_come_back_as_they_were(number: usize, cut in 0_usize..9) {
            let mut packet = Vec::new();
            put_length(&mut packet, number);
            let mut cursor = Cursor::new(&packet);
            prop_assert_eq!(cursor.length_encoded(), Ok(number as u64));
            prop_assert_eq!(cursor.end(), Ok(()));
            // Invalid when truncated.
            if cut < packet.len() {
                prop_assert!(Cursor::new(&packet[..cut]).length_encoded().is_err());
            }
        }

        #[test]
        fn counted_bytes_come_back_as_they_were(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let mut packet = Vec::new();
            put_counted(&mut packet, &bytes);
            prop_assert_eq!(Cursor::new(&packet).counted(), Ok(&bytes[..]));
            packet.pop();
            prop_assert!(Cursor::new(&packet).counted().is_err());
        }

        #[test]
        fn printable_text_has_no_control_characters_and_is_bounded(bytes in proptest::collection::vec(any::<u8>(), 0..4000)) {
            let text = printable(&bytes);
            prop_assert!(text.chars().count() <= 512 && !text.contains(char::is_control));
        }
    }

    #[test]
    fn every_size_of_length_is_known() {
        for (number, length) in
            [(250, 1), (251, 3), (65_535, 3), (65_536, 4), (0xff_ffff, 4), (0x100_0000, 9)]
        {
            let mut packet = Vec::new();
            put_length(&mut packet, number);
            assert_eq!(packet.len(), length, "{number}");
        }
        assert!(Cursor::new(&[0xfb]).length_encoded().is_err());
        assert!(Cursor::new(&[0xff]).length_encoded().is_err());
        // Longer than the address space allows.
        assert!(Cursor::new(&[0xfe, 255, 255, 255, 255, 255, 255, 255, 255, 1]).counted().is_err());
    }

    #[test]
    fn a_string_ends_at_a_zero_byte() {
        let mut cursor = Cursor::new(b"text\0rest");
        assert_eq!(cursor.until_zero(), Ok(&b"text"[..]));
        assert_eq!(cursor.end().is_err(), cursor.left() > 0);
        assert_eq!(cursor.until_zero(), Err(Malformed("a text without an end")));
        assert_eq!(cursor.rest(), b"rest");
        assert_eq!(cursor.end(), Ok(()));
    }
}
