//! Which server is asked about: the text of `agent-send`.

/// The longest request that is read; backend and server names are far shorter.
pub const MAX_REQUEST: usize = 512;

/// What has arrived of a request so far.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// The whole key, up to a newline, without it.
    Whole(String),
    /// No newline yet: this much of a key.
    Partial(String),
    /// Nothing that could be a key: too long, or not text.
    Rubbish,
}

impl Request {
    /// Reads what has arrived.
    pub fn parse(bytes: &[u8]) -> Self {
        let (line, whole) = match bytes.iter().position(|byte| matches!(byte, b'\n' | b'\r' | 0)) {
            Some(end) => (bytes.get(..end).unwrap_or_default(), true),
            None if bytes.len() > MAX_REQUEST => return Self::Rubbish,
            None => (bytes, false),
        };
        match str::from_utf8(line) {
            Ok(key) if whole => Self::Whole(key.trim().to_owned()),
            Ok(key) => Self::Partial(key.trim().to_owned()),
            Err(_) => Self::Rubbish,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_key_ends_at_its_newline() {
        assert_eq!(Request::parse(b"orders/pg1\n"), Request::Whole("orders/pg1".into()));
        assert_eq!(Request::parse(b"orders/pg1\r\nmore"), Request::Whole("orders/pg1".into()));
        assert_eq!(Request::parse(b"orders/pg1"), Request::Partial("orders/pg1".into()));
        assert_eq!(Request::parse(b""), Request::Partial(String::new()));
        assert_eq!(Request::parse(&[b'x'; 600]), Request::Rubbish);
        assert_eq!(Request::parse(b"\xff\xfe\n"), Request::Rubbish);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read(bytes in prop::collection::vec(any::<u8>(), 0..700)) {
            let _ = Request::parse(&bytes);
        }
    }
}
