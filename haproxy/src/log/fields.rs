//! A line in the agent's own format: `key=value`, in any order. Unknown keys are skipped, of a key that comes twice the last
//! counts.

use std::{net::SocketAddr, time::Duration};

use super::{
    State,
    ended::{Ended, Unread},
    value::{millis, name, number, retries, server, source},
};

/// More fields are not looked at.
const MOST: usize = 64;

#[derive(Default)]
struct Texts<'a> {
    pid: Option<&'a str>,
    lc: Option<&'a str>,
    rt: Option<&'a str>,
    ci: Option<&'a str>,
    cp: Option<&'a str>,
    f: Option<&'a str>,
    b: Option<&'a str>,
    s: Option<&'a str>,
    si: Option<&'a str>,
    sp: Option<&'a str>,
    bi: Option<&'a str>,
    bp: Option<&'a str>,
    ts: Option<&'a str>,
    waited: Option<&'a str>,
    connected: Option<&'a str>,
    lasted: Option<&'a str>,
    rc: Option<&'a str>,
    up: Option<&'a str>,
    down: Option<&'a str>,
    err: Option<&'a str>,
}

pub(super) fn parse(fields: &str) -> Result<Ended<'_>, Unread> {
    let mut texts = Texts::default();
    for field in fields.split(' ').take(MOST) {
        let Some((key, value)) = field.split_once('=') else { continue };
        let text = match key {
            "pid" => &mut texts.pid,
            "lc" => &mut texts.lc,
            "rt" => &mut texts.rt,
            "ci" => &mut texts.ci,
            "cp" => &mut texts.cp,
            "f" => &mut texts.f,
            "b" => &mut texts.b,
            "s" => &mut texts.s,
            "si" => &mut texts.si,
            "sp" => &mut texts.sp,
            "bi" => &mut texts.bi,
            "bp" => &mut texts.bp,
            "ts" => &mut texts.ts,
            "Tw" => &mut texts.waited,
            "Tc" => &mut texts.connected,
            "Tt" => &mut texts.lasted,
            "rc" => &mut texts.rc,
            "U" => &mut texts.up,
            "B" => &mut texts.down,
            "err" => &mut texts.err,
            _ => continue,
        };
        *text = Some(value);
    }
    Ok(Ended {
        worker: optional(texts.pid, "pid", number)?,
        sequence: optional(texts.lc, "lc", number)?,
        id: optional(texts.rt, "rt", number)?,
        source: needed(texts.ci, "ci", |ci| source(ci, texts.cp.unwrap_or_default()).ok())?,
        frontend: needed(texts.f, "f", |text| name(text.trim_end_matches('~')))?,
        backend: needed(texts.b, "b", |text| if text == "<NOSRV>" { Some("-") } else { name(text) })?,
        server: needed(texts.s, "s", |text| server(text).ok())?,
        peer: address(texts.si, texts.sp),
        outgoing: address(texts.bi, texts.bp),
        state: needed(texts.ts, "ts", State::parse)?,
        waited: optional(texts.waited, "Tw", |text| millis(text).ok())?.flatten(),
        connected: needed(texts.connected, "Tc", |text| millis(text).ok())?,
        lasted: needed(texts.lasted, "Tt", |text| number(text).map(Duration::from_millis))?,
        retries: optional(texts.rc, "rc", retries)?.unwrap_or(0),
        from_client: optional(texts.up, "U", number)?,
        to_client: needed(texts.down, "B", number)?,
        error: texts.err.and_then(name).filter(|error| *error != "-"),
    })
}

/// A value that has to be there.
fn needed<'a, T>(
    text: Option<&'a str>,
    field: &'static str,
    value: impl FnOnce(&'a str) -> Option<T>,
) -> Result<T, Unread> {
    text.and_then(value).ok_or(Unread::Field(field))
}

/// A value that may be missing, and otherwise has to be right.
fn optional<'a, T>(
    text: Option<&'a str>,
    field: &'static str,
    value: impl FnOnce(&'a str) -> Option<T>,
) -> Result<Option<T>, Unread> {
    text.map(|text| value(text).ok_or(Unread::Field(field))).transpose()
}

/// `-` where there was no connection, and names of Unix sockets: no address.
fn address(ip: Option<&str>, port: Option<&str>) -> Option<SocketAddr> {
    source(ip?, port?).ok()?
}
