//! A server's short packets: OK, ERR, the switch of authentication plugins, and EOF.

use std::fmt;

use super::cursor::{Cursor, Malformed, printable};

/// Status: another result follows.
const MORE_RESULTS: u16 = 0x0008;

/// The first byte of each kind of packet.
pub(super) const OK: u8 = 0x00;
pub const ERROR: u8 = 0xff;
pub(super) const END: u8 = 0xfe;
const MORE_DATA: u8 = 0x01;

/// The limit for EOF packets: longer ones with the same first byte are rows.
pub(super) const LONGEST_END: usize = 8;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerError {
    /// Such as 1045 or 1129.
    pub number: u16,
    /// Servers omit it before the login.
    pub sqlstate: Option<String>,
    /// Without control characters, and bounded.
    pub message: String,
}

impl fmt::Display for ServerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.message, self.number)
    }
}

impl ServerError {
    pub fn parse(packet: &[u8]) -> Result<Self, Malformed> {
        let mut cursor = Cursor::new(packet);
        if cursor.u8()? != ERROR {
            return Err(Malformed("not an error"));
        }
        let number = cursor.u16()?;
        let sqlstate = if cursor.peek() == Some(b'#') {
            cursor.take(1)?;
            let state = cursor.take(5)?;
            if !state.iter().all(u8::is_ascii_alphanumeric) {
                return Err(Malformed("an error with an impossible SQLSTATE"));
            }
            Some(printable(state))
        } else {
            None
        };
        Ok(Self { number, sqlstate, message: printable(cursor.rest()) })
    }
}

#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) struct Done {
    pub(super) affected: u64,
    pub(super) more_results: bool,
}

impl Done {
    pub(super) fn parse(packet: &[u8]) -> Result<Self, Malformed> {
        let mut cursor = Cursor::new(packet);
        if cursor.u8()? != OK {
            return Err(Malformed("not an OK"));
        }
        let affected = cursor.length_encoded()?;
        let _last_insert_id = cursor.length_encoded()?;
        let status = cursor.u16()?;
        let _warnings = cursor.u16()?;
        // An informational text may follow.
        Ok(Self { affected, more_results: status & MORE_RESULTS != 0 })
    }
}

/// Whether another result follows this EOF packet.
pub(super) fn parse_end(packet: &[u8]) -> Result<bool, Malformed> {
    let mut cursor = Cursor::new(packet);
    if cursor.u8()? != END {
        return Err(Malformed("not the end it should be"));
    }
    let _warnings = cursor.u16()?;
    let status = cursor.u16()?;
    cursor.end()?;
    Ok(status & MORE_RESULTS != 0)
}

/// A packet during the login.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::mysql) enum LoginAnswer {
    Accepted,
    Refused(ServerError),
    /// Continue with this plugin. The plugin's data (a prompt or a salt, of any length) is
    /// ignored: the only plugin that is answered needs none.
    Switch {
        /// `None` for `mysql_old_password`, whose switch has no name.
        plugin: Option<String>,
    },
    /// Data between the two sides of a plugin.
    MoreData,
}

impl LoginAnswer {
    pub(in crate::mysql) fn parse(packet: &[u8]) -> Result<Self, Malformed> {
        match packet.first() {
            Some(&OK) => Done::parse(packet).map(|_| Self::Accepted),
            Some(&ERROR) => ServerError::parse(packet).map(Self::Refused),
            Some(&MORE_DATA) => Ok(Self::MoreData),
            Some(&END) => {
                let mut cursor = Cursor::new(packet);
                cursor.take(1)?;
                if cursor.left() == 0 {
                    return Ok(Self::Switch { plugin: None });
                }
                Ok(Self::Switch { plugin: Some(printable(cursor.until_zero()?)) })
            }
            Some(_) => Err(Malformed("an unknown answer to a login")),
            None => Err(Malformed("an empty answer to a login")),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300), first: u8) {
            for bytes in [&bytes[..], &[&[first], &bytes[..]].concat()] {
                let _ = ServerError::parse(bytes);
                let _ = Done::parse(bytes);
                let _ = parse_end(bytes);
                let _ = LoginAnswer::parse(bytes);
            }
        }

        #[test]
        fn errors_are_read_with_and_without_a_state(number: u16, message in "[ -~]{0,200}", state in "[0-9A-Z]{5}") {
            prop_assume!(!message.starts_with('#'));
            let [low, high] = number.to_le_bytes();
            let bare = [&[0xff, low, high], message.as_bytes()].concat();
            let expected = ServerError { number, sqlstate: None, message: message.clone() };
            prop_assert_eq!(ServerError::parse(&bare), Ok(expected));
            let full = [&[0xff, low, high, b'#'], state.as_bytes(), message.as_bytes()].concat();
            let expected = ServerError { number, sqlstate: Some(state), message };
            prop_assert_eq!(ServerError::parse(&full), Ok(expected));
        }

        /// The data of a switch never changes what is parsed.
        #[test]
        fn a_switch_is_parsed_by_name_only(name in "[a-z0-9_]{1,40}", data in proptest::collection::vec(any::<u8>(), 0..300)) {
            let packet = [&[0xfe], name.as_bytes(), &[0], &data].concat();
            prop_assert_eq!(LoginAnswer::parse(&packet), Ok(LoginAnswer::Switch { plugin: Some(name.clone()) }));
            // Invalid without its terminator.
            prop_assert!(LoginAnswer::parse(&packet[..=name.len()]).is_err());
        }
    }

    #[test]
    fn an_end_has_exactly_its_size() {
        assert_eq!(parse_end(&[0xfe, 0, 0, 2, 0]), Ok(false));
        assert_eq!(parse_end(&[0xfe, 0, 0, 0x0a, 0]), Ok(true));
        assert!(parse_end(&[0xfe, 0, 0, 2]).is_err());
        assert!(parse_end(&[0xfe, 0, 0, 2, 0, 0]).is_err());
    }

    #[test]
    fn an_ok_packet_has_the_number_of_rows() {
        assert_eq!(Done::parse(&[0, 3, 0, 0x0a, 0, 0, 0]), Ok(Done { affected: 3, more_results: true }));
        assert_eq!(Done::parse(b"\0\0\0\x02\0\0\0Rows matched: 0").map(|done| done.more_results), Ok(false));
        assert!(Done::parse(&[0, 3, 0, 0x0a, 0, 0]).is_err());
    }

    #[test]
    fn the_old_switch_is_recognized() {
        assert_eq!(LoginAnswer::parse(&[0xfe]), Ok(LoginAnswer::Switch { plugin: None }));
    }
}
