//! What the agent says at a login: the request for TLS, and who it is.
//!
//! Neither has a byte of the token, nor a place for one.

use super::{
    cursor::put_counted,
    greeting::{Greeting, capability as can},
};
use crate::target::Target;

/// `utf8mb4_general_ci`, which every server since 5.5 knows.
const UTF8MB4: u8 = 45;

/// The largest packet the agent wants to see: 16 MiB.
const LARGEST_PACKET: u32 = 1 << 24;

/// What a server must be able to do to be logged in to by IAM.
pub(in crate::mysql) const NEEDED: u32 = can::PROTOCOL_41
    | can::SSL
    | can::SECURE_CONNECTION
    | can::PLUGIN_AUTH
    | can::MULTI_STATEMENTS
    | can::MULTI_RESULTS;

/// The plugin that the agent claims to begin with, and answers nothing for.
///
/// It must not be the one that is wanted: a server takes the empty answer that comes
/// with that for the password, and refuses it without asking. With any other name
/// it asks, by a switch of plugins, and the token goes out only after that.
const FIRST_PLUGIN: &[u8] = b"mysql_native_password";

/// The request for TLS: the start of the login that would follow without it.
pub(in crate::mysql) fn tls_request(greeting: &Greeting, target: &Target) -> Vec<u8> {
    let mut packet = capabilities(greeting, target).to_le_bytes().to_vec();
    packet.extend_from_slice(&LARGEST_PACKET.to_le_bytes());
    packet.push(UTF8MB4);
    packet.extend_from_slice(&[0; 23]);
    packet
}

/// The start of the login, for inside TLS: user, database name, and what the agent
/// calls itself, by which agents know each other's sessions.
pub(in crate::mysql) fn login_request(greeting: &Greeting, target: &Target) -> Vec<u8> {
    let capabilities = capabilities(greeting, target);
    let mut packet = tls_request(greeting, target);
    put_text(&mut packet, target.user.as_bytes());
    // The length of the first plugin's answer: there is none.
    packet.push(0);
    if capabilities & can::CONNECT_WITH_DB != 0 {
        put_text(&mut packet, target.database_name.as_bytes());
    }
    put_text(&mut packet, FIRST_PLUGIN);
    if capabilities & can::CONNECT_ATTRS != 0 {
        let mut attributes = Vec::new();
        for text in ["program_name", &*target.application_name] {
            put_counted(&mut attributes, text.as_bytes());
        }
        put_counted(&mut packet, &attributes);
    }
    packet
}

fn capabilities(greeting: &Greeting, target: &Target) -> u32 {
    let mut wanted = NEEDED | can::LONG_PASSWORD | can::LONG_FLAG | can::TRANSACTIONS;
    if !target.database_name.is_empty() {
        wanted |= can::CONNECT_WITH_DB;
    }
    wanted | greeting.capabilities & can::CONNECT_ATTRS
}

/// A text and its end. A zero inside would end it early and shift all that follows.
fn put_text(packet: &mut Vec<u8>, text: &[u8]) {
    packet.extend(text.iter().copied().filter(|&byte| byte != 0));
    packet.push(0);
}

#[cfg(test)]
mod tests {
    use agent_core::InstanceId;
    use proptest::prelude::*;

    use super::*;
    use crate::target::Address;

    fn target(user: &str, database_name: &str) -> Target {
        Target::new(InstanceId::new("orders", "a"), Address::new("a.example", 3306), user, database_name)
    }

    fn greeting(capabilities: u32) -> Greeting {
        Greeting { version: "8.0.39".to_owned(), capabilities }
    }

    #[test]
    fn the_login_is_as_the_protocol_has_it() {
        let packet = login_request(&greeting(u32::MAX), &target("lb_agent", "orders"));
        let (start, rest) = packet.split_at(32);
        let capabilities = u32::from_le_bytes(start[..4].try_into().unwrap());
        assert_eq!(capabilities & NEEDED, NEEDED);
        assert_eq!(&start[4..9], [0, 0, 0, 1, 45]);
        assert!(start[9..].iter().all(|&byte| byte == 0));
        assert_eq!(rest, b"lb_agent\0\0orders\0mysql_native_password\0\x1a\x0cprogram_name\x0crds-lb-agent");
        assert_eq!(tls_request(&greeting(u32::MAX), &target("lb_agent", "orders")), start);
    }

    #[test]
    fn what_is_not_there_is_left_out() {
        let packet = login_request(&greeting(NEEDED), &target("lb_agent", ""));
        assert_eq!(&packet[32..], b"lb_agent\0\0mysql_native_password\0");
    }

    proptest! {
        /// Compression, local files and other shapes of results are never agreed on.
        #[test]
        fn only_what_is_understood_is_agreed_on(capabilities: u32) {
            let asked = super::capabilities(&greeting(capabilities), &target("u", "d"));
            let compress_or_local_files = 1 << 5 | 1 << 7;
            let track_deprecate_eof_and_above = 0xff << 22;
            prop_assert_eq!(asked & (compress_or_local_files | track_deprecate_eof_and_above), 0);
        }
    }
}
