//! What can go wrong with a runtime socket, and what to do about it.

use std::io;

use crate::Address;

/// A command could not be carried out.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    /// The socket could not be opened. The proxy is away, or the path is wrong, or it is not for the agent.
    #[error("{peer}: cannot connect: {source}{}", advice(.source))]
    Connect {
        /// The socket.
        peer: Address,
        /// The system's words.
        #[source]
        source: io::Error,
    },
    /// The connection broke in the middle of a command.
    #[error("{peer}: `{command}`: {source}")]
    Broken {
        /// The socket.
        peer: Address,
        /// The command.
        command: String,
        /// The system's words.
        #[source]
        source: io::Error,
    },
    /// No whole answer in time.
    #[error("{peer}: `{command}`: no whole answer in time")]
    TimedOut {
        /// The socket.
        peer: Address,
        /// The command.
        command: String,
    },
    /// The answer is longer than any that the command can have.
    #[error("{peer}: `{command}`: the answer is too long")]
    TooLong {
        /// The socket.
        peer: Address,
        /// The command.
        command: String,
    },
    /// The socket's level is too low for this command.
    #[error("{peer}: `{command}`: permission denied; the `stats socket` line needs `level admin`")]
    Denied {
        /// The socket.
        peer: Address,
        /// The command.
        command: String,
    },
    /// HAProxy refused the command in its own words.
    #[error("{peer}: `{command}`: {answer}")]
    Refused {
        /// The socket.
        peer: Address,
        /// The command.
        command: String,
        /// HAProxy's words.
        answer: String,
    },
    /// The answer is not HAProxy's.
    #[error("{peer}: `{command}`: not an answer of HAProxy's: {what}")]
    Garbage {
        /// The socket.
        peer: Address,
        /// The command.
        command: String,
        /// What was wrong with it.
        what: String,
    },
}

fn advice(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::NotFound => "; is HAProxy running, and is this its `stats socket`?",
        io::ErrorKind::PermissionDenied => {
            "; add the agent's user to the socket's group (`mode 660 group ...`)"
        }
        io::ErrorKind::ConnectionRefused => "; nobody listens there: is HAProxy running?",
        _ => "",
    }
}
