//! The guarded `shutdown session`.
//!
//! HAProxy has no compare-and-kill, and reuses pointers at once. So the whole
//! identity is compared right before the shutdown, on the same connection. What
//! became of it is for the database to say: an empty answer proves nothing.

use std::time::Duration;

use tokio::time::Instant;

use crate::{
    Address,
    runtime::{Connection, Limits, RuntimeError, ask_once},
    show_sess::{Entry, Parser, Session},
};

/// Between two closes: each stops all of HAProxy's threads for a moment.
pub const PAUSE: Duration = Duration::from_millis(8);

/// How long the look before a close may take.
const FRESH: Duration = Duration::from_millis(400);

/// What became of a close, as far as HAProxy tells.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Closed {
    /// The shutdown was sent to exactly this session.
    Sent,
    /// The session is gone.
    Gone,
    /// The pointer is another session's by now.
    Changed,
}

/// Closes a session of the worker behind a kept connection. After a close it returns
/// when the next one may come.
pub async fn close(connection: &mut Connection, session: &Session) -> Result<Closed, RuntimeError> {
    let pointer = pointer(connection.peer(), session)?;
    let command = format!("show sess {pointer}");
    let asked = Instant::now();
    let answer = connection.ask(&command).await?;
    fresh(connection.peer(), command, asked)?;
    match guard(&answer, session) {
        Closed::Sent => sent(connection.silent(&format!("shutdown session {pointer}")).await).await,
        other => Ok(other),
    }
}

/// Closes a session of an old worker, through the master socket. After a close it
/// returns when the next one may come.
pub async fn close_in_worker(
    master: &Address,
    pid: u32,
    session: &Session,
    limits: Limits,
) -> Result<Closed, RuntimeError> {
    let pointer = pointer(master, session)?;
    let command = format!("@!{pid} show sess {pointer}");
    let asked = Instant::now();
    let answer = ask_once(master, &command, limits).await?;
    fresh(master, command, asked)?;
    match guard(&answer, session) {
        Closed::Sent => {
            let answer = ask_once(master, &format!("@!{pid} shutdown session {pointer}"), limits).await;
            sent(answer.map(drop)).await
        }
        other => Ok(other),
    }
}

/// An answer that took long may be from before a pause of this process or of the proxy:
/// the caller has seen the session quiet before it, and nobody knows since.
fn fresh(peer: &Address, command: String, asked: Instant) -> Result<(), RuntimeError> {
    if asked.elapsed() <= FRESH {
        return Ok(());
    }
    Err(RuntimeError::TimedOut { peer: peer.clone(), command })
}

/// The pointer as a word of a command: nothing else than `0x` and digits is sent.
fn pointer<'a>(peer: &Address, session: &'a Session) -> Result<&'a str, RuntimeError> {
    let digits = session.pointer.strip_prefix("0x").unwrap_or_default();
    if !digits.is_empty() && digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return Ok(&session.pointer);
    }
    Err(RuntimeError::Refused {
        peer: peer.clone(),
        command: format!("show sess {:?}", session.pointer),
        answer: "not a session's pointer, so it was not sent".into(),
    })
}

/// What became of a `shutdown session`, and the pause after it.
async fn sent(answer: Result<(), RuntimeError>) -> Result<Closed, RuntimeError> {
    let closed = match answer {
        // It ended by itself between the two commands.
        Err(RuntimeError::Refused { answer, .. }) if answer.starts_with("No such session") => {
            Ok(Closed::Gone)
        }
        answer => answer.map(|()| Closed::Sent),
    };
    tokio::time::sleep(PAUSE).await;
    closed
}

fn guard(answer: &str, session: &Session) -> Closed {
    let mut parser = Parser::new();
    let mut found: Option<Entry> = None;
    parser.push(answer.as_bytes(), |entry| found = found.take().or(Some(entry)));
    match found.or_else(|| parser.finish()) {
        None => Closed::Gone,
        Some(entry) if same(&entry, session) => Closed::Sent,
        Some(_) => Closed::Changed,
    }
}

fn same(entry: &Entry, session: &Session) -> bool {
    entry.pointer == session.pointer
        && entry.id == Some(session.id)
        && entry.accepted == session.accepted
        && entry.source == Some(session.source)
        && entry.outgoing == Some(session.outgoing)
        && entry.backend == session.backend
        && entry.server == session.server
}
