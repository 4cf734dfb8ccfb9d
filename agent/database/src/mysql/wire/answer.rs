//! The short answers of a server: done, refused, log in by another plugin, the end
//! of rows.

use std::fmt;

use super::cursor::{Cursor, Malformed, printable};

/// Status: another result follows.
const MORE_RESULTS: u16 = 0x0008;

/// The first byte of each kind of answer.
pub(super) const OK: u8 = 0x00;
pub(super) const ERROR: u8 = 0xff;
pub(super) const END: u8 = 0xfe;
const MORE_DATA: u8 = 0x01;

/// A packet of this size or more that begins like an end of rows is none.
pub(super) const LONGEST_END: usize = 8;

/// What a server refused, in its own words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::mysql) struct ServerError {
    /// MySQL's number: 1045, 1129, ...
    pub(in crate::mysql) number: u16,
    /// The SQLSTATE, which servers leave out before the login.
    pub(in crate::mysql) sqlstate: Option<String>,
    /// Fit for a log.
    pub(in crate::mysql) message: String,
}

impl fmt::Display for ServerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.message, self.number)
    }
}

impl ServerError {
    pub(in crate::mysql) fn parse(packet: &[u8]) -> Result<Self, Malformed> {
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

/// A statement is done, or the login is.
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
        // A remark in words may follow.
        Ok(Self { affected, more_results: status & MORE_RESULTS != 0 })
    }
}

/// Whether another result follows the one whose end this packet is.
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

/// What a server says in the middle of a login.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::mysql) enum LoginAnswer {
    /// Logged in.
    Accepted,
    /// Not logged in.
    Refused(ServerError),
    /// Go on with this plugin. What it says to its other half (a prompt, a salt; of
    /// any length) is of no interest: the only plugin that is answered needs none.
    Switch {
        /// The plugin's name; `None` for the one from before there were plugins.
        plugin: Option<String>,
    },
    /// Something between the two halves of a plugin.
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
        fn rubbish_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..300), first: u8) {
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

        /// The data of a switch may be anything: no byte of it changes what is read.
        #[test]
        fn a_switch_is_its_name(name in "[a-z0-9_]{1,40}", data in proptest::collection::vec(any::<u8>(), 0..300)) {
            let packet = [&[0xfe], name.as_bytes(), &[0], &data].concat();
            prop_assert_eq!(LoginAnswer::parse(&packet), Ok(LoginAnswer::Switch { plugin: Some(name.clone()) }));
            // Without its end it is none.
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
    fn what_is_done_says_how_many_rows() {
        assert_eq!(Done::parse(&[0, 3, 0, 0x0a, 0, 0, 0]), Ok(Done { affected: 3, more_results: true }));
        assert_eq!(Done::parse(b"\0\0\0\x02\0\0\0Rows matched: 0").map(|done| done.more_results), Ok(false));
        assert!(Done::parse(&[0, 3, 0, 0x0a, 0, 0]).is_err());
    }

    #[test]
    fn a_switch_from_before_plugins_is_known_as_such() {
        assert_eq!(LoginAnswer::parse(&[0xfe]), Ok(LoginAnswer::Switch { plugin: None }));
    }
}
