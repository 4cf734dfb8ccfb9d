//! The command line: what may be said. What is done is in [`commands`](crate::commands).

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// Keeps HAProxy in front of Amazon RDS honest: IAM-authenticated health checks, session
/// ages, and retirement between transactions. Never in the data path.
#[derive(Debug, Parser)]
#[command(
    name = "rds-lb-agent",
    version,
    after_help = "Exit codes: 0 ok, 1 a problem was found, 2 could not check, 64 wrong usage or configuration.\n\
                  Each flag can also be set in the environment, as RDS_LB_AGENT_<FLAG>."
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Runs the agent until SIGTERM. SIGHUP, or a change of the file, reloads the configuration
    Run(ConfigFile),
    /// Logs in once as the health check does, says how it went, and exits 0, 1 or 2
    Check(Check),
    /// Shows the sessions of a HAProxy with their ages, without any configuration
    Observe(Observe),
    /// Prints an IAM token alone: the password for one login
    Token(Token),
    /// Shows the sessions of the running agent, with ages and limits
    Sessions(Sessions),
    /// Drains one server through the running agent, above the capacity floor
    Drain(Drain),
    /// Takes drains of the agent's own back
    Undrain(Undrain),
    /// Stops all acting of the running agent at once; it goes on watching
    Pause(Pause),
    /// Lets the running agent act again
    Resume(Control),
    /// Checks a configuration file: errors with line, column and a hint
    Validate(ConfigFile),
    /// Prints the JSON Schema of the configuration, with the documentation of every key
    Schema,
    /// Prints the version
    Version(Output),
}

/// The configuration file.
#[derive(Debug, Args)]
pub struct ConfigFile {
    /// The configuration file
    #[arg(long, short, env = "RDS_LB_AGENT_CONFIG", default_value = "/etc/rds-lb-agent/config.yaml")]
    pub config: PathBuf,
}

/// How results are printed.
#[derive(Debug, Args)]
pub struct Output {
    /// Text for people or JSON for programs
    #[arg(long, value_enum, env = "RDS_LB_AGENT_OUTPUT", default_value = "text")]
    pub output: Format,
}

/// Text for people or JSON for programs.
#[derive(Copy, Clone, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    Text,
    /// For programs.
    Json,
}

/// The control socket of a running agent.
#[derive(Debug, Args)]
pub struct Control {
    /// The control socket of the running agent
    #[arg(long, env = "RDS_LB_AGENT_CONTROL", default_value = "/run/rds-lb-agent/control.sock")]
    pub control: PathBuf,
    /// How results are printed
    #[command(flatten)]
    pub output: Output,
}

/// `check`
#[derive(Debug, Args)]
#[command(after_help = "\
As HAProxy's external check (`option external-check`): HAProxy runs one program without arguments of \
your own and with an empty environment, so let it run a script of two lines:

  #!/bin/sh
  exec /usr/bin/rds-lb-agent check --config /etc/rds-lb-agent/config.yaml \"$@\"

and name that in `external-check command` (AWS settings that come from the environment belong into it \
too). Instance and role are then what the configuration says of \
the server that HAProxy asks about. Called that way, it exits 0 unless it has proof that the server is \
down or has the other role: what it cannot find out never takes a server away.

Exit codes: 0 ok, 1 refused, silent or in another role, 2 could not check, 64 wrong usage or configuration.")]
pub struct Check {
    /// The configuration file
    #[command(flatten)]
    pub config: ConfigFile,
    /// Only this instance, as DATABASE/INSTANCE; all without it
    #[arg(long, env = "RDS_LB_AGENT_INSTANCE")]
    pub instance: Option<String>,
    /// The role it has to have
    #[arg(long, value_enum, env = "RDS_LB_AGENT_ROLE", default_value = "any")]
    pub role: Role,
    /// How results are printed
    #[command(flatten)]
    pub output: Output,
    /// What HAProxy passes to external checks: its own address and port, then the server's
    #[arg(num_args = 4, hide = true, conflicts_with = "instance")]
    pub haproxy: Vec<String>,
}

/// A role to check for.
#[derive(Copy, Clone, Debug, PartialEq, Eq, ValueEnum)]
pub enum Role {
    /// It takes writes.
    Writer,
    /// It is a replica.
    Reader,
    /// Whatever answers.
    Any,
}

/// `observe`
#[derive(Debug, Args)]
pub struct Observe {
    /// HAProxy's runtime socket: /path or HOST:PORT
    #[arg(long, env = "RDS_LB_AGENT_SOCKET")]
    pub socket: haproxy::Address,
    /// HAProxy's master socket, to see old workers too
    #[arg(long, env = "RDS_LB_AGENT_MASTER")]
    pub master: Option<haproxy::Address>,
    /// The age at which sessions would have to go
    #[arg(long, env = "RDS_LB_AGENT_MAX_AGE", default_value = "14m")]
    pub max_age: String,
    /// How results are printed
    #[command(flatten)]
    pub output: Output,
}

/// `token`
#[derive(Debug, Args)]
#[command(
    after_help = "Example: PGPASSWORD=$(rds-lb-agent token --endpoint orders-a.abc.eu-west-1.rds.amazonaws.com:5432 \
                        --user app) psql ..."
)]
pub struct Token {
    /// The RDS endpoint that is signed: its own name, not the balancer's
    #[arg(long, env = "RDS_LB_AGENT_ENDPOINT", value_name = "HOST:PORT")]
    pub endpoint: String,
    /// The database user
    #[arg(long, env = "RDS_LB_AGENT_USER")]
    pub user: String,
    /// The AWS region. Default: what the endpoint's name says, then the AWS environment's
    #[arg(long, env = "RDS_LB_AGENT_REGION")]
    pub region: Option<String>,
}

/// `sessions`
#[derive(Debug, Args)]
pub struct Sessions {
    /// The running agent
    #[command(flatten)]
    pub control: Control,
    /// Show them again every second
    #[arg(long)]
    pub watch: bool,
}

/// `drain`
#[derive(Debug, Args)]
pub struct Drain {
    /// The server, as BACKEND/SERVER
    pub server: String,
    /// The running agent
    #[command(flatten)]
    pub control: Control,
}

/// `undrain`
#[derive(Debug, Args)]
pub struct Undrain {
    /// The server, as BACKEND/SERVER; with --own alone, all
    pub server: Option<String>,
    /// Take all drains on record back, with or without a running agent and a valid configuration
    #[arg(long, required_unless_present = "server", conflicts_with = "server")]
    pub own: bool,
    /// Where the records are
    #[arg(long, env = "RDS_LB_AGENT_STATE_DIR")]
    pub state_dir: Option<PathBuf>,
    /// The configuration file, read for `state_dir` alone and only if it is there
    #[command(flatten)]
    pub config: ConfigFile,
    /// The running agent
    #[command(flatten)]
    pub control: Control,
}

/// `pause`
#[derive(Debug, Args)]
pub struct Pause {
    /// Why: shown until it is resumed
    #[arg(long, default_value = "")]
    pub reason: String,
    /// The running agent
    #[command(flatten)]
    pub control: Control,
}
