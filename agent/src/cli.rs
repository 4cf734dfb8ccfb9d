//! The command line: its syntax and help. What the commands do is in [`commands`](crate::commands).

use std::{path::PathBuf, time::Duration};

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::config::duration;

/// Checks the health of Amazon RDS databases behind HAProxy or Envoy by IAM logins, and retires old
/// sessions between transactions. Never in the data path.
#[derive(Debug, Parser)]
#[command(
    name = "rds-lb-agent",
    version,
    after_help = "Exit codes: 0 ok, 1 a problem was found, 2 could not check, 64 wrong usage or configuration.\n\
                  The help of a command names the environment variable of each flag that has one."
)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the agent until SIGTERM. SIGHUP or a change of the file reloads the configuration
    Run(Run),
    /// Log in to each instance once, as the health check does, and report the result
    Check(Check),
    /// List the sessions of HAProxy with their ages, without a configuration
    Observe(Observe),
    /// Print an IAM token, which is the password for a login
    Token(Token),
    /// Show the state of the running agent on one screen: instances, servers, sessions, drains, events
    Status(Status),
    /// List the sessions known to the running agent, with ages and limits
    Sessions(Sessions),
    /// Show the client sessions that failed behind the proxies: causes, top offenders, the last ones
    Handoffs(Handoffs),
    /// Explain the verdict of a server or what holds a session, or list the last decisions
    Explain(Explain),
    /// Drain a server through the running agent, within the capacity floor
    Drain(Drain),
    /// Take back drains made by the agent
    Undrain(Undrain),
    /// End what the agent has set in HAProxy: its drains, and servers that its answers keep DOWN
    Release(Release),
    /// Write HAProxy's server state file (`server-state-file`) without the agent's own drains
    ServerState(ServerState),
    /// Name the writer where several instances claim to be it. It holds until the next failover
    Writer(Writer),
    /// Make the running agent stop closing sessions and draining servers; health checks go on
    Pause(Pause),
    /// End a pause
    Resume(Control),
    /// Find mistakes in the proxies' configurations and on the way to the databases. Changes nothing
    Doctor(Doctor),
    /// Print configurations for the proxies, the databases, IAM and clients, from the agent's own
    Render(Render),
    /// Check a configuration file. Errors have a line, a column and a hint
    Validate(Validate),
    /// Print the JSON Schema of the configuration, which documents every key, or of an output
    Schema(Schema),
    /// Print the version
    Version(Output),
    /// Print a script that completes commands and flags in a shell
    Completions(Completions),
    /// Print the manual page, of one command if it is named
    Man(Man),
}

#[derive(Debug, Args)]
pub struct Completions {
    pub shell: clap_complete::Shell,
}

#[derive(Debug, Args)]
pub struct Man {
    /// A command, such as `drain`
    pub command: Option<String>,
}

#[derive(Debug, Args)]
pub struct Schema {
    /// What to describe
    #[arg(value_enum, default_value = "config")]
    pub of: Described,
}

#[derive(Copy, Clone, Debug, PartialEq, Eq, ValueEnum)]
pub enum Described {
    /// The configuration file.
    Config,
    /// `status --output json` and GET /status.
    Status,
    /// `sessions --output json`.
    Sessions,
    /// `handoffs --output json` and GET /handoffs.
    Handoffs,
    /// `validate --output json`.
    Validate,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Exit codes: 0 stopped by a signal, 1 a part of the agent failed, 2 it cannot start, 64 wrong usage or configuration.")]
pub struct Run {
    /// Start the agent again a second after it ends, for whatever reason, until a signal stops it. For containers, where
    /// the end of the agent would take the proxy of the same pod out of service
    #[arg(long, env = "RDS_LB_AGENT_RESTART")]
    pub restart: bool,
    #[command(flatten)]
    pub config: ConfigFile,
}

#[derive(Debug, Args)]
pub struct ConfigFile {
    /// The configuration file
    #[arg(long, short, env = "RDS_LB_AGENT_CONFIG", default_value = "/etc/rds-lb-agent/config.yaml")]
    pub config: PathBuf,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Exit codes: 0 valid, 1 a running proxy differs from it (--live), 2 a proxy cannot be asked (--live), 64 errors in \
the file or in a file that it names.")]
pub struct Validate {
    /// The configuration file, instead of --config; `-` is standard input
    pub file: Option<PathBuf>,
    #[command(flatten)]
    pub config: ConfigFile,
    /// Also ask each HAProxy for its backends, servers and agent checks, and compare them. Changes nothing
    #[arg(long, env = "RDS_LB_AGENT_LIVE")]
    pub live: bool,
    #[command(flatten)]
    pub output: Output,
}

#[derive(Debug, Args)]
pub struct Output {
    /// The format of the output
    #[arg(long, value_enum, env = "RDS_LB_AGENT_OUTPUT", default_value = "text")]
    pub output: Format,
}

#[derive(Copy, Clone, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    Text,
    Json,
}

#[derive(Debug, Args)]
pub struct Control {
    /// The control socket of the running agent
    #[arg(long, env = "RDS_LB_AGENT_CONTROL", default_value = "/run/rds-lb-agent/control.sock")]
    pub control: PathBuf,
    #[command(flatten)]
    pub output: Output,
}

#[derive(Debug, Args)]
#[command(after_help = "\
To use it as HAProxy's external check (`option external-check`), write a script, because HAProxy runs the \
program without further arguments and with an empty environment:

  #!/bin/sh
  exec /usr/bin/rds-lb-agent check --config /etc/rds-lb-agent/config.yaml \"$@\"

and name the script in `external-check command`. AWS settings from the environment belong in the script \
too. The instance and the role are those of the server in the configuration that HAProxy checks. As an \
external check, the command exits 0 unless it has proof that the server is down or has the other role: \
a check that cannot be made never takes a server out of rotation.

Exit codes: 0 ok, 1 refused, not answering or in another role, 2 could not check, 64 wrong usage or configuration.")]
pub struct Check {
    #[command(flatten)]
    pub config: ConfigFile,
    /// The instance, as DATABASE/INSTANCE. Default: all instances
    #[arg(long, env = "RDS_LB_AGENT_INSTANCE")]
    pub instance: Option<String>,
    /// The role that the instance must have
    #[arg(long, value_enum, env = "RDS_LB_AGENT_ROLE", default_value = "any")]
    pub role: Role,
    #[command(flatten)]
    pub output: Output,
    /// The arguments of an external check: address and port of the proxy, then of the server
    #[arg(num_args = 4, hide = true, conflicts_with = "instance")]
    pub haproxy: Vec<String>,
}

#[derive(Copy, Clone, Debug, PartialEq, Eq, ValueEnum)]
pub enum Role {
    /// Accepts writes.
    Writer,
    /// Is a replica.
    Reader,
    /// Accepts logins.
    Any,
}

#[derive(Debug, Args)]
pub struct Observe {
    /// The runtime socket of HAProxy: /path or HOST:PORT
    #[arg(long, env = "RDS_LB_AGENT_SOCKET")]
    pub socket: haproxy::Address,
    /// The master socket of HAProxy, to include old workers
    #[arg(long, env = "RDS_LB_AGENT_MASTER")]
    pub master: Option<haproxy::Address>,
    /// The age limit that sessions are compared with
    #[arg(long, env = "RDS_LB_AGENT_MAX_AGE", default_value = "14m")]
    pub max_age: String,
    #[command(flatten)]
    pub output: Output,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Example: PGPASSWORD=$(rds-lb-agent token --endpoint orders-a.abc.eu-west-1.rds.amazonaws.com:5432 \
                        --user app) psql ..."
)]
pub struct Token {
    /// The RDS endpoint of the instance, not the address of a load balancer
    #[arg(long, env = "RDS_LB_AGENT_ENDPOINT", value_name = "HOST:PORT")]
    pub endpoint: String,
    /// The database user
    #[arg(long, env = "RDS_LB_AGENT_USER")]
    pub user: String,
    /// The AWS region. Default: the region in the name of the endpoint, else the one of the AWS environment
    #[arg(long, env = "RDS_LB_AGENT_REGION")]
    pub region: Option<String>,
}

#[derive(Debug, Args)]
#[command(after_help = "\
docs/DOCTOR.md has every rule with the reason, the fix and examples.

Exit codes: 0 nothing found, 1 errors found (with --strict: or warnings), 2 something could not be examined, 64 wrong \
usage or configuration.")]
pub struct Doctor {
    /// The configuration of the agent, with which the proxies have to agree. Default: it is not compared
    #[arg(long, short, env = "RDS_LB_AGENT_CONFIG")]
    pub config: Option<PathBuf>,
    /// A configuration file of HAProxy, or a folder of *.cfg files; in the order of HAProxy's own -f
    #[arg(long, value_name = "PATH", env = "RDS_LB_AGENT_HAPROXY")]
    pub haproxy: Vec<PathBuf>,
    /// The version of HAProxy, like 3.2. Default: every version
    #[arg(long, value_name = "VERSION", env = "RDS_LB_AGENT_HAPROXY_VERSION")]
    pub haproxy_version: Option<String>,
    /// A configuration file of Envoy, or the output of its /config_dump
    #[arg(long, value_name = "FILE", env = "RDS_LB_AGENT_ENVOY")]
    pub envoy: Vec<PathBuf>,
    /// Ask AWS for the instances of --config, their clusters, parameter groups, maintenance and events, by calls that only
    /// read. With FILE: examine the JSON output of a command `aws rds describe-...`, of `aws ec2 describe-security-groups` or
    /// of `aws iam get-policy-version`. May be repeated
    #[arg(long, value_name = "FILE", num_args = 0..=1, default_missing_value = "api", env = "RDS_LB_AGENT_AWS")]
    pub aws: Vec<AwsAnswers>,
    /// Log in to each instance of --config, and report what is wrong on the way: network, TLS, token, rights
    #[arg(long, requires = "config", env = "RDS_LB_AGENT_LIVE")]
    pub live: bool,
    /// With --live: also log in through this port of a proxy, and compare the certificate. May be repeated
    #[arg(long, value_name = "DATABASE=HOST:PORT", requires = "live", env = "RDS_LB_AGENT_THROUGH")]
    pub through: Vec<String>,
    /// Leave out what a rule finds
    #[arg(long, value_name = "RULE", env = "RDS_LB_AGENT_ALLOW")]
    pub allow: Vec<String>,
    /// Exit 1 for warnings too
    #[arg(long, env = "RDS_LB_AGENT_STRICT")]
    pub strict: bool,
    #[command(flatten)]
    pub output: Output,
}

/// Where answers of AWS come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AwsAnswers {
    /// AWS is asked.
    Api,
    File(PathBuf),
}

impl std::str::FromStr for AwsAnswers {
    type Err = std::convert::Infallible;

    /// The word `api`, or a file. A file with this name is `./api`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(if text == "api" { Self::Api } else { Self::File(text.into()) })
    }
}

#[derive(Debug, Args)]
#[command(after_help = "\
Clients of the first backend use the port of the database, those of the next ones the ports after it; --port chooses \
the first port.

Exit codes: 0 printed, 64 wrong usage or configuration.")]
pub struct Render {
    /// What to print
    #[arg(value_enum)]
    pub what: Rendered,
    /// The endpoint of the cluster for a backend, or cluster of Envoy: the fallback by DNS, and the name that clients
    /// verify. May be repeated
    #[arg(long, value_name = "BACKEND=HOST:PORT", env = "RDS_LB_AGENT_CLUSTER")]
    pub cluster: Vec<String>,
    /// The address on which clients reach the proxy
    #[arg(long, default_value = "127.0.0.1", env = "RDS_LB_AGENT_BIND")]
    pub bind: std::net::IpAddr,
    /// The port of the first backend. Default: the port of its database
    #[arg(long, env = "RDS_LB_AGENT_PORT")]
    pub port: Option<u16>,
    /// For `client` and `iam`: the database user of the clients
    #[arg(long, default_value = "app", env = "RDS_LB_AGENT_USER")]
    pub user: String,
    /// For `iam`: the number of the AWS account
    #[arg(long, default_value = "ACCOUNT", env = "RDS_LB_AGENT_ACCOUNT")]
    pub account: String,
    /// For `iam`: the resource id of an instance or its cluster (DbiResourceId, DbClusterResourceId). May be repeated
    #[arg(long, value_name = "DATABASE/INSTANCE=ID", env = "RDS_LB_AGENT_RESOURCE")]
    pub resource: Vec<String>,
    /// For `iam`: what the agent may read of RDS's API beside its logins. May be repeated
    #[arg(long, value_enum, env = "RDS_LB_AGENT_FEATURE")]
    pub feature: Vec<AwsFeature>,
    #[command(flatten)]
    pub config: ConfigFile,
}

#[derive(Copy, Clone, Debug, PartialEq, Eq, ValueEnum)]
pub enum AwsFeature {
    /// Instances and clusters.
    Topology,
    /// These, parameter groups, maintenance and events: what `doctor --aws` reads.
    Doctor,
}

#[derive(Copy, Clone, Debug, PartialEq, Eq, ValueEnum)]
pub enum Rendered {
    /// The configuration of HAProxy.
    Haproxy,
    /// The bootstrap of Envoy.
    Envoy,
    /// The statements that create the agent's user.
    Grants,
    /// The policy that allows the logins of the agent and of the clients.
    Iam,
    /// Settings of clients: libpq, psycopg, SQLAlchemy, Go, Node, JDBC, mysql, mariadb.
    Client,
}

#[derive(Debug, Args)]
#[command(after_help = "\
The column PROXY is what HAProxy itself shows, beside the verdict of the agent. A table wider than 80 columns is \
cut; COLUMNS=200 widens it, and --output json has everything.")]
pub struct Status {
    #[command(flatten)]
    pub control: Control,
    /// Repeat every second, and redraw on a terminal. As JSON, one line for each
    #[arg(long, env = "RDS_LB_AGENT_WATCH")]
    pub watch: bool,
}

#[derive(Debug, Args)]
pub struct Explain {
    /// A server as BACKEND/SERVER, or a session by its PID in the database. With --history also DATABASE/INSTANCE
    pub subject: Option<String>,
    /// The last log lines of level INFO and above that the running agent remembers, about the subject or all
    #[arg(long, env = "RDS_LB_AGENT_HISTORY")]
    pub history: bool,
    #[command(flatten)]
    pub control: Control,
}

#[derive(Debug, Args)]
pub struct Sessions {
    #[command(flatten)]
    pub control: Control,
    /// Repeat every second
    #[arg(long, env = "RDS_LB_AGENT_WATCH")]
    pub watch: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "\
For HAProxy, set `haproxy.log` in the configuration and the lines that `render haproxy` prints in haproxy.cfg. \
docs/HANDOFFS.md explains each phase.

Exit codes: 0 shown, 2 no agent answers, 64 wrong usage.")]
pub struct Handoffs {
    #[command(flatten)]
    pub control: Control,
    /// How far to look back, at most 1h
    #[arg(long, env = "RDS_LB_AGENT_SINCE", value_name = "DURATION", value_parser = duration, default_value = "10m")]
    pub since: Duration,
    /// The most failed sessions that are listed
    #[arg(long, env = "RDS_LB_AGENT_MOST", default_value_t = 20)]
    pub most: usize,
    /// Repeat every second
    #[arg(long, env = "RDS_LB_AGENT_WATCH")]
    pub watch: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "\
The drain lasts until `undrain`, also across restarts of the agent and its stop, unless --for ends it. The command \
answers when the proxy shows the drain, and otherwise withdraws it.

Exit codes: 0 drained (with --until-empty: and empty), 1 not drained, or sessions are left after --timeout (they are \
printed, and the drain lasts), 2 could not check, 64 wrong usage.")]
pub struct Drain {
    /// The server, as BACKEND/SERVER
    pub server: String,
    /// End the drain after this time: 30m
    #[arg(long = "for", env = "RDS_LB_AGENT_FOR", value_name = "DURATION", value_parser = duration)]
    pub lasts: Option<Duration>,
    /// Drain it even if too few other servers are left, or none. The floor does not end the drain either
    #[arg(long, env = "RDS_LB_AGENT_FORCE")]
    pub force: bool,
    /// Wait until no session is left. In mode `retire`, idle sessions are retired whatever their age
    #[arg(long, env = "RDS_LB_AGENT_UNTIL_EMPTY")]
    pub until_empty: bool,
    /// How long to wait for that
    #[arg(long, env = "RDS_LB_AGENT_TIMEOUT", value_name = "DURATION", value_parser = duration, default_value = "5m")]
    pub timeout: Duration,
    #[command(flatten)]
    pub control: Control,
}

#[derive(Debug, Args)]
#[command(after_help = "\
For a reload of HAProxy, in place of a dump by `show servers state`: a drain of the agent's in the file would come \
back after the reload, and look like an operator's. It needs no running agent.

Exit codes: 0 written, 2 HAProxy or the agent's records cannot be read, or the file cannot be written.")]
pub struct ServerState {
    /// The runtime socket of HAProxy, as in the configuration of the agent: /path or HOST:PORT
    #[arg(long, env = "RDS_LB_AGENT_SOCKET")]
    pub socket: haproxy::Address,
    /// The file to replace. Default: standard output
    #[arg(long, env = "RDS_LB_AGENT_FILE")]
    pub file: Option<PathBuf>,
    /// The state directory of the agent. Default: the one in the configuration file
    #[arg(long, env = "RDS_LB_AGENT_STATE_DIR")]
    pub state_dir: Option<PathBuf>,
    #[command(flatten)]
    pub config: ConfigFile,
}

#[derive(Debug, Args)]
pub struct Writer {
    /// The database, as the configuration names it
    pub database: String,
    /// The instance that is the writer
    pub instance: String,
    #[command(flatten)]
    pub control: Control,
}

#[derive(Debug, Args)]
pub struct Undrain {
    /// The server, as BACKEND/SERVER
    #[arg(required_unless_present = "own")]
    pub server: Option<String>,
    /// The same as the command `release`
    #[arg(long, conflicts_with = "server", hide = true)]
    pub own: bool,
    #[command(flatten)]
    pub release: Release,
}

#[derive(Debug, Args)]
#[command(after_help = "\
It needs neither a running agent nor a valid configuration. A server in a writer backend that is not the \
last known writer stays DOWN: up, it would receive writes. The command that lifts it is printed. Beside \
a running agent only drains end; `pause` or a stop of the agent lifts the servers that are DOWN.

Exit codes: 0 released, 1 something could not be released (it is printed), 2 the state directory or the records cannot be read.")]
pub struct Release {
    /// Also end operators' drains
    #[arg(long, env = "RDS_LB_AGENT_OPERATORS")]
    pub operators: bool,
    /// The state directory with the records. Default: the one in the configuration file
    #[arg(long, env = "RDS_LB_AGENT_STATE_DIR")]
    pub state_dir: Option<PathBuf>,
    #[command(flatten)]
    pub config: ConfigFile,
    #[command(flatten)]
    pub control: Control,
}

#[derive(Debug, Args)]
pub struct Pause {
    /// The reason, shown until the agent is resumed
    #[arg(long, env = "RDS_LB_AGENT_REASON", default_value = "")]
    pub reason: String,
    #[command(flatten)]
    pub control: Control,
}

/// The right form of a command line that was refused, if it is known.
pub fn right_form(arguments: &[String]) -> Option<String> {
    let [command, subject] = arguments else { return None };
    match command.as_str() {
        "check" => Some(format!("check --instance {subject}")),
        "observe" => Some(format!("observe --socket {subject}")),
        "run" => Some(format!("run --config {subject}")),
        "writer" => {
            subject.split_once('/').map(|(database, instance)| format!("writer {database} {instance}"))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn each_flag_can_be_set_in_the_environment() {
        for command in Cli::command().get_subcommands() {
            // `--own` is an older name of the command `release`.
            let flags = command.get_arguments().filter(|argument| argument.get_id() != "own");
            for (flag, argument) in flags.filter_map(|argument| Some((argument.get_long()?, argument))) {
                let expected = format!("RDS_LB_AGENT_{}", flag.to_uppercase().replace('-', "_"));
                let env = argument.get_env().and_then(|env| env.to_str());
                assert_eq!(env, Some(&*expected), "{} --{flag}", command.get_name());
            }
        }
    }

    #[test]
    fn a_name_without_its_flag_is_answered_with_the_right_form() {
        let form = |words: [&str; 2]| right_form(&words.map(str::to_owned));
        assert_eq!(form(["check", "orders/b"]).as_deref(), Some("check --instance orders/b"));
        assert_eq!(form(["writer", "orders/b"]).as_deref(), Some("writer orders b"));
        assert_eq!(form(["drain", "--now"]), None);
    }
}
