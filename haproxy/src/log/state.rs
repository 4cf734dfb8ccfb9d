//! The termination state (`%ts`), with its meaning in mode tcp. Meanings are those of HAProxy's manual; measured on 2.6
//! and 2.8: a session that was connected ends as `SD`, `CD` or `--` depending on which side's end HAProxy read first, so
//! none of these three tells a failure from a normal end.

use std::fmt;

/// Two letters: which side ended the session, and in which moment.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash)]
pub struct State {
    pub side: Side,
    pub moment: Moment,
}

/// The first letter.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash)]
pub enum Side {
    /// `C`: the client closed or reset.
    Client,
    /// `S`: the server closed, reset, or refused the connection; or there is none.
    Server,
    /// `P`: HAProxy refused the session by a rule.
    Refused,
    /// `L`: HAProxy itself answered.
    Local,
    /// `R`: HAProxy ran out of memory, sockets or ports.
    Resource,
    /// `I`: an internal error.
    Internal,
    /// `D`: HAProxy closed it because its server was marked down.
    Down,
    /// `U`: HAProxy closed it on a backup server because a server came up.
    Up,
    /// `K`: closed by a command on the runtime socket, or by `hard-stop-after`.
    Killed,
    /// `c`: `timeout client`.
    ClientTimeout,
    /// `s`: `timeout connect`, `timeout queue` or `timeout server`.
    ServerTimeout,
    /// `-`: both sides closed.
    Normal,
}

/// The second letter.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash)]
pub enum Moment {
    /// `R`: before a server was looked for.
    Request,
    /// `Q`: waiting for a free connection to a server.
    Queue,
    /// `C`: connecting.
    Connect,
    /// `H`: waiting for the head of an answer.
    Head,
    /// `D`: connected.
    Data,
    /// `L`: sending the rest.
    Last,
    /// `T`: tarpit.
    Tarpit,
    /// `-`: after the end.
    Over,
}

impl State {
    /// The two letters, and the two of cookies that `%tsc` adds.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let ([side, moment] | [side, moment, _, _]) = *text.as_bytes() else { return None };
        let side = match side {
            b'C' => Side::Client,
            b'S' => Side::Server,
            b'P' => Side::Refused,
            b'L' => Side::Local,
            b'R' => Side::Resource,
            b'I' => Side::Internal,
            b'D' => Side::Down,
            b'U' => Side::Up,
            b'K' => Side::Killed,
            b'c' => Side::ClientTimeout,
            b's' => Side::ServerTimeout,
            b'-' => Side::Normal,
            _ => return None,
        };
        let moment = match moment {
            b'R' => Moment::Request,
            b'Q' => Moment::Queue,
            b'C' => Moment::Connect,
            b'H' => Moment::Head,
            b'D' => Moment::Data,
            b'L' => Moment::Last,
            b'T' => Moment::Tarpit,
            b'-' => Moment::Over,
            _ => return None,
        };
        Some(Self { side, moment })
    }

    /// The meaning, as a clause.
    pub fn words(self) -> &'static str {
        match (self.side, self.moment) {
            (Side::Client, Moment::Queue) => "the client left while it waited in the queue",
            (Side::Client, Moment::Connect) => "the client left while HAProxy connected",
            (Side::Client, _) => "the client closed first",
            (Side::Server, Moment::Connect) => "no server, or it refused the connection",
            (Side::Server, _) => "the server closed first",
            (Side::Refused, _) => "a rule of HAProxy refused the session",
            (Side::Local, _) => "HAProxy answered by itself",
            (Side::Resource, _) => "HAProxy ran out of memory, sockets or ports",
            (Side::Internal, _) => "internal error of HAProxy",
            (Side::Down, _) => "HAProxy closed it because the server was marked down",
            (Side::Up, _) => "HAProxy closed it because another server came up",
            (Side::Killed, _) => "closed by a command on the runtime socket or by `hard-stop-after`",
            (Side::ClientTimeout, _) => "`timeout client` passed",
            (Side::ServerTimeout, Moment::Connect) => "`timeout connect` passed",
            (Side::ServerTimeout, Moment::Queue) => "`timeout queue` passed",
            (Side::ServerTimeout, _) => "`timeout server` passed",
            (Side::Normal, _) => "both sides closed",
        }
    }
}

impl fmt::Display for State {
    /// As HAProxy prints it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.side {
            Side::Client => "C",
            Side::Server => "S",
            Side::Refused => "P",
            Side::Local => "L",
            Side::Resource => "R",
            Side::Internal => "I",
            Side::Down => "D",
            Side::Up => "U",
            Side::Killed => "K",
            Side::ClientTimeout => "c",
            Side::ServerTimeout => "s",
            Side::Normal => "-",
        })?;
        f.write_str(match self.moment {
            Moment::Request => "R",
            Moment::Queue => "Q",
            Moment::Connect => "C",
            Moment::Head => "H",
            Moment::Data => "D",
            Moment::Last => "L",
            Moment::Tarpit => "T",
            Moment::Over => "-",
        })
    }
}
