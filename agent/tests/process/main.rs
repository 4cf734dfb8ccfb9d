//! The running agent, without a database or a proxy that answers: what other programs on its host see of it.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test")]

mod supervisor;
mod tokens;

use std::{
    net::TcpListener,
    path::Path,
    process::{Child, Command, ExitStatus},
};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// An agent with its own folder.
struct Agent {
    process: Child,
    folder: TempDir,
}

impl Agent {
    /// Starts one with these settings in addition, in which `FOLDER` is its folder.
    fn start(settings: &str, environment: impl Fn(&mut Command, &Path)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let port = || TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let text = format!(
            "databases:
  - name: orders
    engine: postgresql
    user: lb_agent
    instances:
      - {{name: a, endpoint: 'orders-a.abc.eu-west-1.rds.amazonaws.com:5432', connect: '127.0.0.1:9'}}
proxies:
  - haproxy: {{socket: /nonexistent/admin.sock}}
    backends:
      orders_write: {{database: orders, role: writer, servers: {{a: a}}}}
listen: {{agent_check: '{}', http: '{}', control: 'FOLDER/control.sock'}}
state_dir: 'FOLDER/state'
",
            port(),
            port(),
        );
        let text = (text + settings).replace("FOLDER", folder.path().to_str().unwrap());
        let config = folder.path().join("config.yaml");
        std::fs::write(&config, text).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_rds-lb-agent"));
        command.args(["run", "--config"]).arg(&config);
        environment(&mut command, folder.path());
        Self { process: command.spawn().unwrap(), folder }
    }

    fn stop(&mut self) -> ExitStatus {
        let _ = kill_process(Pid::from_child(&self.process), Signal::TERM);
        self.process.wait().unwrap()
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.stop();
    }
}
