//! Errors of runtime sockets, with what to do about them.

use std::io;

use crate::Address;

#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    /// The proxy is not running, the path is wrong, or the agent lacks the permission.
    #[error("{peer}: cannot connect: {source}{}", advice(.source))]
    Connect {
        peer: Address,
        #[source]
        source: io::Error,
    },
    /// The connection broke during a command.
    #[error("{peer}: `{command}`: {source}")]
    Broken {
        peer: Address,
        command: String,
        #[source]
        source: io::Error,
    },
    /// No complete answer in time.
    #[error("{peer}: `{command}`: no complete answer in time")]
    TimedOut { peer: Address, command: String },
    /// The answer exceeds the limit.
    #[error("{peer}: `{command}`: the answer is too long")]
    TooLong { peer: Address, command: String },
    /// The socket has a level too low for this command.
    #[error("{peer}: `{command}`: permission denied; the `stats socket` line needs `level admin`")]
    Denied { peer: Address, command: String },
    /// HAProxy refused the command, with this message.
    #[error("{peer}: `{command}`: {answer}")]
    Refused { peer: Address, command: String, answer: String },
    /// The answer has an unknown format: the peer may not be HAProxy.
    #[error("{peer}: `{command}`: not an answer of HAProxy: {what}")]
    Garbage { peer: Address, command: String, what: String },
}

fn advice(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::NotFound => "; is HAProxy running, and is this its `stats socket`?",
        io::ErrorKind::PermissionDenied => {
            "; add the agent's user to the socket's group (`mode 660 group ...`)"
        }
        io::ErrorKind::ConnectionRefused => "; nothing listens there: is HAProxy running?",
        _ => "",
    }
}
