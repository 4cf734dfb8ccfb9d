//! `run --restart`: a parent process that starts the agent again whenever it ends.
//!
//! A Kubernetes pod is ready only while all its containers run. An agent that exits, because its new
//! configuration is wrong for one, would take the healthy proxy of its pod out of service.

use std::{io, path::Path, time::Duration};

use rustix::process::{Pid, Signal, kill_process};
use tokio::{
    process::{Child, Command},
    signal::unix::{SignalKind, signal},
    time::sleep,
};

use super::{Exit, complain};

/// Between the end of one agent and the start of the next.
const PAUSE: Duration = Duration::from_secs(1);

pub(super) async fn restart(config: &Path) -> Exit {
    match supervise(config).await {
        Ok(exit) => exit,
        Err(error) => {
            complain(format_args!("cannot start the agent: {error}"));
            Exit::CouldNotCheck
        }
    }
}

async fn supervise(config: &Path) -> io::Result<Exit> {
    let mut hangup = signal(SignalKind::hangup())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hand_over = signal(SignalKind::user_defined1())?;
    // Found once: its file may be replaced meanwhile.
    let program = std::env::current_exe()?;
    loop {
        let started = Command::new(&program)
            .args(["run", "--config"])
            .arg(config)
            .env_remove("RDS_LB_AGENT_RESTART")
            .spawn();
        match started {
            Ok(mut agent) => {
                let mut stopping = false;
                let status = loop {
                    let (passed, stops) = tokio::select! {
                        status = agent.wait() => break status?,
                        _ = hangup.recv() => (Signal::HUP, false),
                        _ = terminate.recv() => (Signal::TERM, true),
                        _ = interrupt.recv() => (Signal::INT, true),
                        _ = hand_over.recv() => (Signal::USR1, true),
                    };
                    stopping |= stops;
                    pass(&agent, passed);
                };
                if stopping {
                    return Ok(if status.success() { Exit::Ok } else { Exit::Problem });
                }
                complain(format_args!("the agent ended ({status}) and is started again"));
            }
            Err(error) => complain(format_args!("the agent cannot be started and is tried again: {error}")),
        }
        tokio::select! {
            () = sleep(PAUSE) => {}
            _ = terminate.recv() => return Ok(Exit::Ok),
            _ = interrupt.recv() => return Ok(Exit::Ok),
            _ = hand_over.recv() => return Ok(Exit::Ok),
        }
    }
}

fn pass(agent: &Child, signal: Signal) {
    let pid = agent.id().and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw);
    if let Some(pid) = pid {
        // It may have ended at this moment.
        let _ = kill_process(pid, signal);
    }
}
