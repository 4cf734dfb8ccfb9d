//! When the token may go out: once, and as what it is, a clear password inside
//! verified TLS that the server has asked for by name.
//!
//! A server that wants the login by any other plugin does not mean IAM, and an answer
//! made from the token would be matter to guess it from. It gets one without content.

use std::fmt;

use super::wire::{LoginAnswer, Malformed, ServerError};

/// The only plugin that is answered with the token.
const CLEAR_PASSWORD: &str = "mysql_clear_password";

/// The course of one login, as the server's answers drive it. Exists only once the
/// stream is verified TLS, and decides alone whether the token goes out.
#[derive(Debug, Default)]
pub(super) struct LoginGate {
    asked: bool,
}

/// What an answer of the server's leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Send the token, and a zero behind it.
    SendToken,
    /// The login is done.
    Accepted,
    /// The server refuses it.
    Refused(ServerError),
    /// The server asks for what it does not get.
    Decline(TokenNotAsked),
}

impl LoginGate {
    /// Whether the server has asked for the token.
    pub(super) fn asked(&self) -> bool {
        self.asked
    }

    /// Reads the server's next answer.
    pub(super) fn step(&mut self, packet: &[u8]) -> Result<Step, Malformed> {
        Ok(match LoginAnswer::parse(packet)? {
            LoginAnswer::Accepted => Step::Accepted,
            LoginAnswer::Refused(error) => Step::Refused(error),
            _ if self.asked => Step::Decline(TokenNotAsked::Again),
            LoginAnswer::Switch { plugin: Some(plugin) } if plugin == CLEAR_PASSWORD => {
                self.asked = true;
                Step::SendToken
            }
            LoginAnswer::Switch { plugin } => Step::Decline(TokenNotAsked::Plugin(
                plugin.unwrap_or_else(|| "mysql_old_password".to_owned()),
            )),
            LoginAnswer::MoreData => Step::Decline(TokenNotAsked::NoName),
        })
    }
}

/// The server asked for something else than the token, or for more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum TokenNotAsked {
    /// For a login by this plugin.
    Plugin(String),
    /// Without naming a plugin.
    NoName,
    /// For more, after it had the token.
    Again,
}

impl TokenNotAsked {
    /// An answer that says nothing, and that the server refuses as a wrong password
    /// rather than counts as a login that was broken off.
    pub(super) fn answer(&self) -> &'static [u8] {
        match self {
            // The size of a signature is checked first.
            Self::Plugin(plugin) if plugin == "client_ed25519" => &[0; 64],
            _ => &[],
        }
    }
}

impl fmt::Display for TokenNotAsked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Plugin(plugin) if plugin == "dialog" => f.write_str(
                "the server asked for a dialog instead of an IAM token, which was not sent: \
                 set pam_use_cleartext_plugin",
            ),
            Self::Plugin(plugin) => write!(
                f,
                "the server asked for a login by {plugin} instead of an IAM token, which was not sent: \
                 is the user identified with AWSAuthenticationPlugin, and IAM authentication on?"
            ),
            Self::NoName => f.write_str(
                "the server went on with the login without asking for an IAM token, which was not sent: \
                 is the user identified with AWSAuthenticationPlugin?",
            ),
            Self::Again => f.write_str(
                "the server asked for more after it had the token, which IAM never does: \
                 nothing more was sent",
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn switch(plugin: &str, data: &[u8]) -> Vec<u8> {
        [&[0xfe], plugin.as_bytes(), &[0], data].concat()
    }

    const ACCEPTED: &[u8] = &[0, 0, 0, 2, 0, 0, 0];

    proptest! {
        #[test]
        fn the_token_is_sent_when_it_is_asked_for_with_data_of_any_length(
            data in proptest::collection::vec(any::<u8>(), 0..4_000),
        ) {
            let mut gate = LoginGate::default();
            prop_assert_eq!(gate.step(&switch(CLEAR_PASSWORD, &data)), Ok(Step::SendToken));
            prop_assert!(gate.asked());
            prop_assert_eq!(gate.step(ACCEPTED), Ok(Step::Accepted));
        }

        #[test]
        fn any_other_plugin_is_declined(
            plugin in "[a-zA-Z0-9_]{0,40}",
            data in proptest::collection::vec(any::<u8>(), 0..40),
        ) {
            prop_assume!(plugin != CLEAR_PASSWORD);
            let mut gate = LoginGate::default();
            let step = gate.step(&switch(&plugin, &data));
            prop_assert_eq!(step, Ok(Step::Decline(TokenNotAsked::Plugin(plugin))));
            prop_assert!(!gate.asked());
        }

        /// Whatever a server says, the token goes out at most once.
        #[test]
        fn the_token_is_never_sent_twice(
            packets in proptest::collection::vec(
                prop_oneof![
                    Just(switch(CLEAR_PASSWORD, b"")),
                    Just(switch("dialog", b"")),
                    Just(vec![1, 4]),
                    Just(vec![0xfe]),
                    proptest::collection::vec(any::<u8>(), 0..40),
                ],
                0..20,
            ),
        ) {
            let mut gate = LoginGate::default();
            let sent = packets.iter().filter(|packet| gate.step(packet) == Ok(Step::SendToken)).count();
            prop_assert!(sent <= 1);
            prop_assert_eq!(sent == 1, gate.asked());
        }
    }

    #[test]
    fn names_that_only_look_alike_are_declined() {
        for plugin in ["mysql_clear_password ", "MYSQL_CLEAR_PASSWORD", "mysql_clear_passwor", ""] {
            let step = LoginGate::default().step(&switch(plugin, b"")).unwrap();
            assert_eq!(step, Step::Decline(TokenNotAsked::Plugin(plugin.to_owned())));
        }
        // The same plugin from before there were names, and one without its end.
        let step = LoginGate::default().step(&[0xfe]).unwrap();
        assert_eq!(step, Step::Decline(TokenNotAsked::Plugin("mysql_old_password".to_owned())));
        assert!(LoginGate::default().step(b"\xfemysql_clear_password").is_err());
    }

    #[test]
    fn a_server_that_asks_for_nothing_is_noticed() {
        let mut gate = LoginGate::default();
        assert_eq!(gate.step(ACCEPTED), Ok(Step::Accepted));
        assert!(!gate.asked());
    }

    #[test]
    fn the_refusal_names_the_likely_cause() {
        let words = TokenNotAsked::Plugin("caching_sha2_password".to_owned()).to_string();
        assert!(
            words.contains("caching_sha2_password") && words.contains("AWSAuthenticationPlugin"),
            "{words}"
        );
        let words = TokenNotAsked::Plugin("dialog".to_owned()).to_string();
        assert!(words.contains("pam_use_cleartext_plugin"), "{words}");
    }
}
