//! The client's packets of a login: the request for TLS, and the login request. Neither contains
//! the token.

use super::{
    cursor::put_counted,
    greeting::{Greeting, capability as can},
};
use crate::target::Target;

/// `utf8mb4_general_ci`, known to every server since 5.5.
const UTF8MB4: u8 = 45;

/// The maximum packet size that the agent announces: 16 MiB.
const LARGEST_PACKET: u32 = 1 << 24;

/// The capabilities that an IAM login needs.
pub const NEEDED: u32 = can::PROTOCOL_41
    | can::SSL
    | can::SECURE_CONNECTION
    | can::PLUGIN_AUTH
    | can::MULTI_STATEMENTS
    | can::MULTI_RESULTS;

/// The plugin that the login request names, with an empty response.
///
/// It must not be `mysql_clear_password`: a server would take the empty response for the password
/// and refuse it. With any other name the server requests a switch of plugins, and the token is
/// sent only then.
pub const FIRST_PLUGIN: &[u8] = b"mysql_native_password";

/// The request for TLS.
pub(in crate::mysql) fn tls_request(greeting: &Greeting, target: &Target) -> Vec<u8> {
    fixed_part(capabilities(greeting, target))
}

/// The fixed part of a login request, which is also the request for TLS.
pub fn fixed_part(capabilities: u32) -> Vec<u8> {
    let mut packet = capabilities.to_le_bytes().to_vec();
    packet.extend_from_slice(&LARGEST_PACKET.to_le_bytes());
    packet.push(UTF8MB4);
    packet.extend_from_slice(&[0; 23]);
    packet
}

/// The login request, sent inside TLS: user, database name, and the program name, by which agents
/// recognize one another's sessions.
pub(in crate::mysql) fn login_request(greeting: &Greeting, target: &Target) -> Vec<u8> {
    let capabilities = capabilities(greeting, target);
    let mut packet = tls_request(greeting, target);
    put_text(&mut packet, target.user.as_bytes());
    // The length of the first plugin's response: empty.
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

/// A zero-terminated string. A zero inside would shift the following fields.
pub fn put_text(packet: &mut Vec<u8>, text: &[u8]) {
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
    fn the_login_request_has_the_specified_layout() {
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
    fn unsupported_fields_are_omitted() {
        let packet = login_request(&greeting(NEEDED), &target("lb_agent", ""));
        assert_eq!(&packet[32..], b"lb_agent\0\0mysql_native_password\0");
    }

    proptest! {
        /// Compression, local files and other result formats are never negotiated.
        #[test]
        fn only_implemented_capabilities_are_negotiated(capabilities: u32) {
            let asked = super::capabilities(&greeting(capabilities), &target("u", "d"));
            let compress_or_local_files = 1 << 5 | 1 << 7;
            let track_deprecate_eof_and_above = 0xff << 22;
            prop_assert_eq!(asked & (compress_or_local_files | track_deprecate_eof_and_above), 0);
        }
    }
}
