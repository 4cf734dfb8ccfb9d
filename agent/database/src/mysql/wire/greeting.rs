//! The server's first packet: its version and capabilities.

use super::cursor::{Cursor, Malformed, printable};

/// Capability flags. A connection uses those that both sides set.
///
/// <https://dev.mysql.com/doc/dev/mysql-server/latest/group__group__cs__capabilities__flags.html>
pub mod capability {
    /// To MariaDB: the client does not use MariaDB's own capabilities.
    pub const LONG_PASSWORD: u32 = 1;
    pub const LONG_FLAG: u32 = 1 << 2;
    pub const CONNECT_WITH_DB: u32 = 1 << 3;
    pub const PROTOCOL_41: u32 = 1 << 9;
    pub const SSL: u32 = 1 << 11;
    pub const TRANSACTIONS: u32 = 1 << 13;
    pub const SECURE_CONNECTION: u32 = 1 << 15;
    pub const MULTI_STATEMENTS: u32 = 1 << 16;
    pub const MULTI_RESULTS: u32 = 1 << 17;
    pub const PLUGIN_AUTH: u32 = 1 << 19;
    pub const CONNECT_ATTRS: u32 = 1 << 20;
}

/// Far above the size of real ones, which have about 100 bytes.
pub const LARGEST_GREETING: usize = 64 * 1024;

/// The protocol version since MySQL 3.21.
const PROTOCOL_10: u8 = 10;

/// The fields of a greeting that the agent uses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::mysql) struct Greeting {
    /// As sent, including MariaDB's prefix `5.5.5-`.
    pub(in crate::mysql) version: String,
    /// Bits of [`capability`].
    pub(in crate::mysql) capabilities: u32,
}

impl Greeting {
    pub(in crate::mysql) fn parse(packet: &[u8]) -> Result<Self, Malformed> {
        let mut cursor = Cursor::new(packet);
        if cursor.u8()? != PROTOCOL_10 {
            return Err(Malformed("not a greeting of protocol 10"));
        }
        let version = printable(cursor.until_zero()?);
        let _connection_id = cursor.u32()?;
        let _salt = cursor.take(8)?;
        if cursor.u8()? != 0 {
            return Err(Malformed("a greeting without its filler"));
        }
        let low = cursor.u16()?;
        let _character_set = cursor.u8()?;
        let _status = cursor.u16()?;
        let high = cursor.u16()?;
        let capabilities = u32::from(high) << 16 | u32::from(low);
        let salt_length = usize::from(cursor.u8()?);
        // The last four are MariaDB's own capabilities.
        let _reserved = cursor.take(10)?;
        if capabilities & capability::SECURE_CONNECTION != 0 {
            let _more_salt = cursor.take(salt_length.saturating_sub(8).max(13))?;
        }
        if capabilities & capability::PLUGIN_AUTH != 0 {
            let _default_plugin = cursor.until_zero()?;
        }
        cursor.end()?;
        Ok(Self { version, capabilities })
    }

    /// Whether the server has all of these capabilities.
    pub(in crate::mysql) fn can(&self, capabilities: u32) -> bool {
        self.capabilities & capabilities == capabilities
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::mysql::wire::testing::greeting;

    const MARIADB: &[u8] = b"\x0a5.5.5-10.11.19-MariaDB-0+deb12u1\0\x1f\0\0\0qX=q%zdT\0\xfe\xff\x2d\x02\0\xff\xc1\x15\0\0\0\0\0\0\x3d\0\0\0;?.=YhYa0q:y\0mysql_native_password\0";

    #[test]
    fn mariadb_is_read() {
        let greeting = Greeting::parse(MARIADB).unwrap();
        assert_eq!(greeting.version, "5.5.5-10.11.19-MariaDB-0+deb12u1");
        assert!(greeting.can(capability::SSL | capability::PLUGIN_AUTH | capability::CONNECT_ATTRS));
        assert!(!greeting.can(capability::SSL | 1));
    }

    #[test]
    fn a_truncated_greeting_is_malformed() {
        for end in 0..MARIADB.len() {
            assert!(Greeting::parse(&MARIADB[..end]).is_err(), "{end}");
        }
        assert!(Greeting::parse(&[MARIADB, b"x"].concat()).is_err());
        assert!(Greeting::parse(b"\x09 old").is_err());
        assert!(Greeting::parse(b"SSH-2.0-OpenSSH_9.2\r\n").is_err());
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = Greeting::parse(&bytes);
            let _ = Greeting::parse(&[&[PROTOCOL_10], &bytes[..]].concat());
        }

        #[test]
        fn every_greeting_is_read_as_it_was_made(
            version in "[ -~]{0,60}",
            capabilities in any::<u32>(),
            plugin in "[a-z0-9_]{0,40}",
            salt in 13_u8..100,
        ) {
            let made = greeting(&version, capabilities, salt + 8, &plugin);
            prop_assert_eq!(Greeting::parse(&made), Ok(Greeting { version, capabilities }));
        }
    }
}
