//! A line of `option tcplog`:
//! `127.0.0.1:54404 [29/Nov/2026:08:06:45.137] write orders/a 1/0/151 100 SD 1/1/0/0/0 0/0`.

use super::{
    State,
    ended::{Ended, Unread},
    value::{millis, name, number, retries, server, source},
};

/// Words of the syslog header at most.
const HEADER: usize = 12;

/// `None` if the line has another format.
pub(super) fn parse(text: &str) -> Option<Result<Ended<'_>, Unread>> {
    let mut words = text.split(' ').filter(|word| !word.is_empty());
    let mut client = words.next()?;
    let mut header = 0;
    // The accept date follows the client.
    loop {
        let word = words.next()?;
        if is_date(word) {
            break;
        }
        client = word;
        header += 1;
        if header > HEADER {
            return None;
        }
    }
    // Without a header, the priority is part of the first word.
    let client = client.rsplit_once('>').map_or(client, |(_, client)| client);
    Some(fields(client, words))
}

/// `[29/Nov/2026:08:06:45.137]`: in HAProxy's local time, so it is not used.
fn is_date(word: &str) -> bool {
    word.len() == 26 && word.starts_with('[') && word.ends_with(']') && word.matches('/').count() == 2
}

fn fields<'a>(client: &'a str, mut words: impl Iterator<Item = &'a str>) -> Result<Ended<'a>, Unread> {
    let mut next = |field| words.next().ok_or(Unread::Field(field));
    let (address, port) = client.rsplit_once(':').ok_or(Unread::Field("ci"))?;
    let frontend = next("f")?;
    let (backend, chosen) = next("b")?.split_once('/').ok_or(Unread::Field("s"))?;
    let mut times = next("Tt")?.split('/').map(millis);
    let mut time = |field| times.next().and_then(Result::ok).ok_or(Unread::Field(field));
    let (waited, connected) = (time("Tw")?, time("Tc")?);
    let lasted = time("Tt")?.ok_or(Unread::Field("Tt"))?;
    if times.next().is_some() {
        // Five times and a status: `option httplog`.
        return Err(Unread::Foreign);
    }
    let bytes = next("B")?;
    let state = next("ts")?;
    let connections = next("rc")?;
    Ok(Ended {
        worker: None,
        sequence: None,
        id: None,
        source: source(address, port).map_err(|_| Unread::Field("ci"))?,
        frontend: name(frontend.trim_end_matches('~')).ok_or(Unread::Field("f"))?,
        backend: if backend == "<NOSRV>" { "-" } else { name(backend).ok_or(Unread::Field("b"))? },
        server: server(chosen).map_err(|_| Unread::Field("s"))?,
        peer: None,
        outgoing: None,
        state: State::parse(state).ok_or(Unread::Field("ts"))?,
        waited,
        connected,
        lasted,
        retries: connections.rsplit('/').next().and_then(retries).ok_or(Unread::Field("rc"))?,
        from_client: None,
        to_client: number(bytes).ok_or(Unread::Field("B"))?,
        error: None,
    })
}
