//! Processes by their ids: signals, children, states, as `/proc` shows them.

use std::{fs, io};

use rustix::process::{Pid, kill_process};

use super::{Error, Signal};

/// Sends a signal to a process by its id. The caller knows that the id is still that process.
pub fn send_signal(pid: u32, signal: Signal) -> Result<(), Error> {
    let what = || format!("send signal {} to process {pid}", signal.as_raw());
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    let pid = pid.ok_or_else(|| Error::Io { what: what(), source: io::ErrorKind::InvalidInput.into() })?;
    match kill_process(pid, signal) {
        // It ended meanwhile: there is no process to signal.
        Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
        Err(errno) => Err(Error::Io { what: what(), source: errno.into() }),
    }
}

/// The ids of the processes whose parent is `pid`.
pub fn children_of(pid: u32) -> Vec<u32> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let ids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    ids.filter(|child| parent_of(*child) == Some(pid)).collect()
}

fn parent_of(pid: u32) -> Option<u32> {
    Some(state_and_parent(pid)?.1)
}

/// Whether a process is stopped, as by SIGSTOP; one that is gone is not.
pub fn is_stopped(pid: u32) -> bool {
    state_and_parent(pid).is_some_and(|(state, _)| state == "T")
}

/// Whether a process still runs, or is stopped; one that only waits to be reaped does not.
pub fn is_alive(pid: u32) -> bool {
    state_and_parent(pid).is_some_and(|(state, _)| state != "Z" && state != "X")
}

fn state_and_parent(pid: u32) -> Option<(String, u32)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may itself contain spaces and parentheses.
    let (_, fields) = stat.rsplit_once(") ")?;
    let mut fields = fields.split(' ');
    Some((fields.next()?.to_owned(), fields.next()?.parse().ok()?))
}
