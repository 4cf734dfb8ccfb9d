//! The guarded `shutdown session`.
//!
//! HAProxy cannot shut down a session by its identity, only by a pointer, which it reuses at once. So the whole
//! identity is compared right before the shutdown, on the same connection. An empty answer proves nothing:
//! only the database confirms a close.

use std::time::Duration;

use tokio::time::Instant;

use crate::{
    Address,
    runtime::{Connection, Limits, RuntimeError, ask_once},
    show_sess::{Entry, Parser, Session},
};

/// The pause between two closes: each stops all threads of HAProxy for a moment.
pub const PAUSE: Duration = Duration::from_millis(8);

/// The longest time from the comparison to the shutdown.
const FRESH: Duration = Duration::from_millis(400);

/// The result of a close, as far as HAProxy shows it.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Closed {
    /// The shutdown was sent to exactly this session.
    Sent,
    /// The session is gone.
    Gone,
    /// The pointer belongs to another session now.
    Changed,
}

/// Closes a session of the worker behind a persistent connection. After a close it returns
/// when the next one is allowed.
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

/// Closes a session of an old worker, through the master socket. After a close it returns when the
/// next one is allowed.
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

/// A slow answer may be from before a pause of this process or of the proxy. The caller saw the
/// session idle before that.
fn fresh(peer: &Address, command: String, asked: Instant) -> Result<(), RuntimeError> {
    if asked.elapsed() <= FRESH {
        return Ok(());
    }
    Err(RuntimeError::TimedOut { peer: peer.clone(), command })
}

/// The pointer as a word of a command: only `0x` and hexadecimal digits are sent.
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

/// The result of a `shutdown session`, after the pause.
async fn sent(answer: Result<(), RuntimeError>) -> Result<Closed, RuntimeError> {
    let closed = match answer {
        // It ended between the two commands.
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
        && entry.source == session.source
        && entry.outgoing == Some(session.outgoing)
        && entry.backend == session.backend
        && entry.server == session.server
}
