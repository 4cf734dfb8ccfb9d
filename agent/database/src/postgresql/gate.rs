//! Watches the server's side of a login, so that the token is sent only as a clear-text
//! password inside verified TLS.
//!
//! A server that requests MD5 or SCRAM does not use IAM, and a response computed from the token
//! could be attacked offline. The gate reads the server's messages before the driver does and
//! ends such a login.

use std::{
    fmt, io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_postgres::tls::{ChannelBinding, TlsStream};

use crate::tls::VerifiedStream;

/// `AuthenticationOk`.
const OK: u32 = 0;
/// `AuthenticationCleartextPassword`.
const CLEAR_PASSWORD: u32 = 3;

/// A verified stream that fails if the server requests anything but a clear-text password.
pub(super) struct LoginGate {
    stream: VerifiedStream,
    /// `None` once the login was accepted: bytes then pass unchecked.
    reader: Option<AuthenticationReader>,
    asked: Arc<AtomicBool>,
}

impl LoginGate {
    /// The gate, and a flag that is set when the server requests the password.
    pub(super) fn new(stream: VerifiedStream) -> (Self, Arc<AtomicBool>) {
        let asked = Arc::new(AtomicBool::new(false));
        (Self { stream, reader: Some(AuthenticationReader::default()), asked: Arc::clone(&asked) }, asked)
    }
}

impl AsyncRead for LoginGate {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let gate = self.get_mut();
        let before = buf.filled().len();
        ready!(Pin::new(&mut gate.stream).poll_read(cx, buf))?;
        if let Some(reader) = &mut gate.reader {
            let fresh = buf.filled().get(before..).unwrap_or_default();
            let read = reader.read(fresh);
            if reader.asked {
                gate.asked.store(true, Ordering::Relaxed);
            }
            match read {
                Ok(Progress::Waiting) => {}
                Ok(Progress::Accepted) => gate.reader = None,
                Err(refused) => {
                    buf.set_filled(before);
                    return Poll::Ready(Err(io::Error::other(refused)));
                }
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for LoginGate {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}

impl TlsStream for LoginGate {
    fn channel_binding(&self) -> ChannelBinding {
        // Needed by SCRAM only, which the gate refuses.
        ChannelBinding::none()
    }
}

/// The server requested another authentication method.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct TokenNotAsked {
    method: u32,
}

impl fmt::Display for TokenNotAsked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let method = match self.method {
            2 => "Kerberos",
            5 => "an MD5 password",
            7 | 8 => "GSSAPI",
            9 => "SSPI",
            10..=12 => "a SCRAM password",
            _ => "an unknown authentication method",
        };
        write!(
            f,
            "the server requested {method} instead of an IAM token, so no token was sent: \
             check that the user is a member of rds_iam and that IAM authentication is on"
        )
    }
}

impl std::error::Error for TokenNotAsked {}

#[derive(Copy, Clone, Debug, PartialEq, Eq)]
enum Progress {
    Waiting,
    Accepted,
}

/// Parses the server's messages until the login is accepted, from chunks of any size. A message
/// is a type byte, a length that includes itself, and a body; the first four bytes of an
/// authentication message's body are the method.
#[derive(Default)]
struct AuthenticationReader {
    header: Vec<u8>,
    /// Bytes of the current message that are not needed.
    skip: usize,
    asked: bool,
}

impl AuthenticationReader {
    fn read(&mut self, mut bytes: &[u8]) -> Result<Progress, TokenNotAsked> {
        while !bytes.is_empty() {
            let skipped = self.skip.min(bytes.len());
            self.skip -= skipped;
            bytes = bytes.get(skipped..).unwrap_or_default();
            let Some((&byte, rest)) = bytes.split_first() else { break };
            bytes = rest;
            self.header.push(byte);

            let wanted = if self.header.first() == Some(&b'R') { 9 } else { 5 };
            if self.header.len() < wanted {
                continue;
            }
            let length = self.number(1) as usize;
            self.skip = (length + 1).saturating_sub(wanted);
            if wanted == 9 {
                match self.number(5) {
                    OK => return Ok(Progress::Accepted),
                    CLEAR_PASSWORD => self.asked = true,
                    method => return Err(TokenNotAsked { method }),
                }
            }
            self.header.clear();
        }
        Ok(Progress::Waiting)
    }

    /// The four-byte number at an offset of the header.
    fn number(&self, at: usize) -> u32 {
        self.header
            .get(at..at + 4)
            .and_then(|bytes| bytes.try_into().ok())
            .map_or(u32::MAX, u32::from_be_bytes)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn authentication(code: u32, rest: &[u8]) -> Vec<u8> {
        let mut body = code.to_be_bytes().to_vec();
        body.extend_from_slice(rest);
        message(b'R', &body)
    }

    fn message(kind: u8, body: &[u8]) -> Vec<u8> {
        let mut message = vec![kind];
        message.extend_from_slice(&u32::try_from(body.len() + 4).unwrap().to_be_bytes());
        message.extend_from_slice(body);
        message
    }

    fn in_pieces(stream: &[u8], size: usize) -> (Result<Progress, TokenNotAsked>, bool) {
        let mut reader = AuthenticationReader::default();
        for piece in stream.chunks(size) {
            match reader.read(piece) {
                Ok(Progress::Waiting) => {}
                done => return (done, reader.asked),
            }
        }
        (Ok(Progress::Waiting), reader.asked)
    }

    proptest! {
        #[test]
        fn a_clear_text_password_request_passes_in_chunks_of_any_size(
            size in 1_usize..64,
            notice in proptest::collection::vec(any::<u8>(), 0..100),
        ) {
            let stream = [message(b'N', &notice), authentication(3, &[]), authentication(0, &[])].concat();
            prop_assert_eq!(in_pieces(&stream, size), (Ok(Progress::Accepted), true));
        }

        #[test]
        fn any_other_method_is_refused(
            size in 1_usize..64,
            code in (1_u32..100).prop_filter("not clear", |code| *code != CLEAR_PASSWORD),
            rest in proptest::collection::vec(any::<u8>(), 0..40),
        ) {
            let (outcome, asked) = in_pieces(&authentication(code, &rest), size);
            prop_assert_eq!(outcome, Err(TokenNotAsked { method: code }));
            prop_assert!(!asked);
        }

        #[test]
        fn arbitrary_bytes_never_panic(size in 1_usize..64, bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = in_pieces(&bytes, size);
        }
    }

    #[test]
    fn a_login_without_a_password_request_is_noticed() {
        assert_eq!(in_pieces(&authentication(0, &[]), 100), (Ok(Progress::Accepted), false));
    }

    #[test]
    fn an_error_message_passes() {
        let stream = message(b'E', b"SFATAL\0C28000\0Mno\0\0");
        assert_eq!(in_pieces(&stream, 7), (Ok(Progress::Waiting), false));
    }

    #[test]
    fn the_refusal_names_the_likely_cause() {
        let words = TokenNotAsked { method: 10 }.to_string();
        assert!(words.contains("SCRAM") && words.contains("rds_iam"), "{words}");
    }
}
