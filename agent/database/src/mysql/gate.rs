//! Decides when the token may be sent: once, as a clear-text password inside verified TLS, and
//! only if the server requested that plugin by name.
//!
//! A server that requests another plugin does not use IAM, and a response computed from the
//! token could be attacked offline. Such a server gets an empty response.

use std::fmt;

use super::wire::{LoginAnswer, Malformed, ServerError};

/// The only plugin that gets the token.
const CLEAR_PASSWORD: &str = "mysql_clear_password";

/// The state of one login, driven by the server's packets. Created only after TLS is verified;
/// nothing else decides whether the token is sent.
#[derive(Debug, Default)]
pub(super) struct LoginGate {
    asked: bool,
}

/// The next step of a login.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Send the token, followed by a zero byte.
    SendToken,
    /// The login is complete.
    Accepted,
    /// The server refuses it.
    Refused(ServerError),
    /// The server requests something else: send an empty response.
    Decline(TokenNotAsked),
}

impl LoginGate {
    /// Whether the server has requested the token.
    pub(super) fn asked(&self) -> bool {
        self.asked
    }

    /// Takes the server's next packet.
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

/// The server requested something other than the token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum TokenNotAsked {
    /// Authentication by this plugin.
    Plugin(String),
    /// More data without having named a plugin.
    NoName,
    /// More data after it had received the token.
    Again,
}

impl TokenNotAsked {
    /// A response without content, which the server refuses as a wrong password instead of
    /// counting the login as aborted.
    pub(super) fn answer(&self) -> &'static [u8] {
        match self {
            // The server checks the size of the signature first.
            Self::Plugin(plugin) if plugin == "client_ed25519" => &[0; 64],
            _ => &[],
        }
    }
}

impl fmt::Display for TokenNotAsked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Plugin(plugin) if plugin == "dialog" => f.write_str(
                "the server requested the PAM dialog plugin instead of an IAM token, so no token was sent: \
                 set pam_use_cleartext_plugin",
            ),
            Self::Plugin(plugin) => write!(
                f,
                "the server requested {plugin} instead of an IAM token, so no token was sent: \
                 check that the user is identified with AWSAuthenticationPlugin and that IAM \
                 authentication is on"
            ),
            Self::NoName => f.write_str(
                "the server continued the login without requesting an IAM token, so none was sent: \
                 check that the user is identified with AWSAuthenticationPlugin",
            ),
            Self::Again => f.write_str(
                "the server requested more data after it had received the token, which IAM never does; \
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
        fn the_token_is_sent_on_request_whatever_data_follows(
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

        /// Whatever a server sends, the token is sent at most once.
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
    fn similar_plugin_names_are_declined() {
        for plugin in ["mysql_clear_password ", "MYSQL_CLEAR_PASSWORD", "mysql_clear_passwor", ""] {
            let step = LoginGate::default().step(&switch(plugin, b"")).unwrap();
            assert_eq!(step, Step::Decline(TokenNotAsked::Plugin(plugin.to_owned())));
        }
        // The old switch without a name, and a name without its terminator.
        let step = LoginGate::default().step(&[0xfe]).unwrap();
        assert_eq!(step, Step::Decline(TokenNotAsked::Plugin("mysql_old_password".to_owned())));
        assert!(LoginGate::default().step(b"\xfemysql_clear_password").is_err());
    }

    #[test]
    fn a_login_without_a_password_request_is_noticed() {
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
