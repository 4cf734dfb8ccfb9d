//! The text of `agent-send`, which names the server.

/// The maximum length of a request, in bytes; backend and server names are far shorter.
pub const MAX_REQUEST: usize = 512;

/// A request, as far as it was received.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// The text before the newline.
    Complete(String),
    /// The newline has not arrived.
    Partial(String),
    /// Too long, or not UTF-8.
    Invalid,
}

impl Request {
    pub fn parse(bytes: &[u8]) -> Self {
        let (line, complete) = match bytes.iter().position(|byte| matches!(byte, b'\n' | b'\r' | 0)) {
            Some(end) => (bytes.get(..end).unwrap_or_default(), true),
            None if bytes.len() > MAX_REQUEST => return Self::Invalid,
            None => (bytes, false),
        };
        match str::from_utf8(line) {
            Ok(key) if complete => Self::Complete(key.trim().to_owned()),
            Ok(key) => Self::Partial(key.trim().to_owned()),
            Err(_) => Self::Invalid,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_key_ends_at_its_newline() {
        assert_eq!(Request::parse(b"orders/pg1\n"), Request::Complete("orders/pg1".into()));
        assert_eq!(Request::parse(b"orders/pg1\r\nmore"), Request::Complete("orders/pg1".into()));
        assert_eq!(Request::parse(b"orders/pg1"), Request::Partial("orders/pg1".into()));
        assert_eq!(Request::parse(b""), Request::Partial(String::new()));
        assert_eq!(Request::parse(&[b'x'; 600]), Request::Invalid);
        assert_eq!(Request::parse(b"\xff\xfe\n"), Request::Invalid);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read(bytes in prop::collection::vec(any::<u8>(), 0..700)) {
            let _ = Request::parse(&bytes);
        }
    }
}
