//! Cleans up when the process that runs a stand-in, or a HAProxy, is killed.
//!
//! A shell waits for the end of a pipe from this process, and then removes what is left: see
//! `guardian.sh`. After an orderly end there is nothing left to do for it.

use std::{
    os::unix::process::CommandExt,
    path::Path,
    process::{Child, Command, Stdio},
};

use crate::process::Error;

/// Dropped last, after the folder.
#[derive(Debug)]
pub(crate) struct Guardian {
    shell: Child,
}

impl Guardian {
    pub(crate) fn watch(folder: &Path) -> Result<Self, Error> {
        let shell = Command::new("sh")
            // Not as an argument, so that the list of processes stays readable.
            .env("GUARDIAN", include_str!("guardian.sh"))
            .args(["-c", "eval \"$GUARDIAN\"", "iam-standin-guardian"])
            .arg(folder)
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // What kills a whole process group, as Ctrl-C does, must not kill it.
            .process_group(0)
            .spawn()
            .map_err(Error::io("start the stand-in's guardian, a shell"))?;
        Ok(Self { shell })
    }
}

impl Drop for Guardian {
    fn drop(&mut self) {
        drop(self.shell.stdin.take());
        let _ = self.shell.wait();
    }
}
