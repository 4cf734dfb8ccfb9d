//! The commands by which a person (or a script) plays with a running stand-in.
//!
//! They come over a Unix socket that only its owner can reach: a command as one line of
//! JSON; what comes back is one line of JSON too, `{"Ok": text}` or `{"Err": text}`.

use std::{fmt::Write as _, fs, io, os::unix::fs::PermissionsExt, path::Path, time::Duration};

use clap::{Subcommand, ValueEnum};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{UnixListener, UnixStream},
};

use super::{Behaviour, Error, LoginAttempt, StandIn, StopMode, busiest_second};
use crate::process;

/// What can be asked of a running stand-in.
#[derive(Clone, Debug, Subcommand, Serialize, Deserialize)]
pub enum Request {
    /// Shows which servers run, and in which role
    Status,
    /// Prints a genuine token, and nothing else
    Token {
        /// The database user
        user: String,
        /// The server that it is for; for every server by default
        #[arg(long)]
        server: Option<String>,
    },
    /// Makes a replica a writer; the old writer stays one
    Promote {
        /// The replica
        server: String,
    },
    /// Stops the writer, promotes a replica, and brings the old writer back as a replica
    Failover {
        /// The replica
        server: String,
    },
    /// Makes a server a fresh replica of the writer
    Rebuild {
        /// The server
        server: String,
    },
    /// Stops a server
    Stop {
        /// The server
        server: String,
        /// As in a crash
        #[arg(long)]
        immediate: bool,
    },
    /// Starts a stopped server
    Start {
        /// The server
        server: String,
    },
    /// Stops and starts a server
    Restart {
        /// The server
        server: String,
    },
    /// Freezes a server: it takes connections and never answers
    Freeze {
        /// The server
        server: String,
    },
    /// Lets a frozen server go on
    Thaw {
        /// The server
        server: String,
    },
    /// Refuses tokens, genuine ones too, until `accept`
    Refuse {
        /// Only on this server
        #[arg(long)]
        server: Option<String>,
        /// Only of this user
        #[arg(long)]
        user: Option<String>,
    },
    /// Takes genuine tokens again
    Accept,
    /// Revokes all credentials that were issued
    Revoke,
    /// Serves new credentials; the old ones stay valid
    Rotate,
    /// Changes how the credentials endpoint treats who asks
    Credentials {
        /// The new behaviour
        behaviour: ConsoleBehaviour,
    },
    /// Runs SQL as superuser
    Sql {
        /// The server
        server: String,
        /// The statements
        sql: String,
    },
    /// Shows the latest logins with tokens
    Logins {
        /// How many
        #[arg(default_value_t = 20)]
        count: usize,
    },
}

/// [`Behaviour`] on the command line.
#[derive(Clone, Copy, Debug, ValueEnum, Serialize, Deserialize)]
pub enum ConsoleBehaviour {
    /// Answers
    Serving,
    /// Takes requests and does not answer
    Silent,
    /// Answers HTTP 500
    Failing,
    /// Refuses connections
    Refusing,
}

impl From<ConsoleBehaviour> for Behaviour {
    fn from(said: ConsoleBehaviour) -> Self {
        match said {
            ConsoleBehaviour::Serving => Behaviour::Serving,
            ConsoleBehaviour::Silent => Behaviour::Silent,
            ConsoleBehaviour::Failing => Behaviour::Failing,
            ConsoleBehaviour::Refusing => Behaviour::Refusing,
        }
    }
}

/// The longest request, in bytes.
const LONGEST: u64 = 1 << 20;

/// The time limit for a client to send its request.
const PATIENCE: Duration = Duration::from_secs(5);

/// Listens for requests on `path`, which is this user's alone.
pub fn listen(path: &Path) -> Result<UnixListener, process::Error> {
    let listening = UnixListener::bind(path).and_then(|listener| {
        fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
        Ok(listener)
    });
    listening.map_err(process::Error::io(format!("listen on {}", path.display())))
}

/// Carries out requests, one after the other, until it is dropped.
pub async fn serve(standin: &StandIn, listener: &UnixListener) {
    loop {
        match listener.accept().await {
            // A client that goes away has only itself to tell.
            Ok((client, _)) => drop(answer(standin, client).await),
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
}

async fn answer(standin: &StandIn, mut client: UnixStream) -> io::Result<()> {
    let mut line = String::new();
    let mut reader = BufReader::new((&mut client).take(LONGEST));
    tokio::time::timeout(PATIENCE, reader.read_line(&mut line)).await??;
    let answer: Result<String, String> = match serde_json::from_str::<Request>(&line) {
        Ok(request) => request.carry_out(standin).await.map_err(|error| error.to_string()),
        Err(error) => Err(format!("not a request: {error}")),
    };
    let mut line = serde_json::to_string(&answer)?;
    line.push('\n');
    client.write_all(line.as_bytes()).await
}

/// Sends a request to the stand-in that listens on `path`; gives its answer.
///
/// # Errors
/// Nothing listens there, or the stand-in could not do it.
pub async fn ask(path: &Path, request: &Request) -> Result<String, Box<dyn std::error::Error>> {
    let what = format!("ask the stand-in at {}", path.display());
    let mut stream = UnixStream::connect(path).await.map_err(process::Error::io(what))?;
    let mut line = serde_json::to_string(request)?;
    line.push('\n');
    stream.write_all(line.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    serde_json::from_str::<Result<String, String>>(&answer)?.map_err(Into::into)
}

impl Request {
    /// Carries it out, and returns text for the operator; empty if there is none.
    pub async fn carry_out(self, standin: &StandIn) -> Result<String, Error> {
        match self {
            Request::Status => return standin.status().await,
            Request::Token { user, server } => {
                return server.map_or_else(
                    || Ok(standin.cluster_token(&user)),
                    |server| standin.token(&server, &user),
                );
            }
            Request::Sql { server, sql } => {
                let rows = standin.execute_sql(&server, &sql).await?;
                let line = |row: Vec<Option<String>>| {
                    row.into_iter().map(Option::unwrap_or_default).collect::<Vec<_>>().join(" | ")
                };
                return Ok(rows.into_iter().map(line).collect::<Vec<_>>().join("\n"));
            }
            Request::Logins { count } => return Ok(logins(&standin.journal().attempts(), count)),
            Request::Promote { server } => standin.promote(&server).await?,
            Request::Failover { server } => standin.failover(&server).await?,
            Request::Rebuild { server } => standin.rebuild_as_replica(&server).await?,
            Request::Stop { server, immediate } => {
                let mode = if immediate { StopMode::Immediate } else { StopMode::Fast };
                standin.stop(&server, mode).await?;
            }
            Request::Start { server } => standin.start_server(&server).await?,
            Request::Restart { server } => standin.restart(&server).await?,
            Request::Freeze { server } => standin.freeze(&server).await?,
            Request::Thaw { server } => standin.thaw(&server).await?,
            Request::Refuse { server, user } => standin.refuse_tokens(server.as_deref(), user.as_deref())?,
            Request::Accept => standin.accept_tokens(),
            Request::Revoke => standin.credentials().issuer().revoke_all(),
            Request::Rotate => drop(standin.credentials().issuer().rotate(Timestamp::now())),
            Request::Credentials { behaviour } => standin.credentials().behave(behaviour.into()),
        }
        Ok(String::new())
    }
}

impl StandIn {
    async fn status(&self) -> Result<String, Error> {
        let mut text = String::new();
        for server in self.servers() {
            // A frozen one would never answer.
            let role = if server.is_frozen().await {
                "frozen"
            } else if server.pid().await.is_none() {
                "stopped"
            } else {
                match self.common.driver.is_writer(server).await {
                    Ok(true) => "writer",
                    Ok(false) => "replica",
                    Err(_) => "does not answer",
                }
            };
            // Writing to a string does not fail.
            let _ =
                writeln!(text, "{}  {role:<16}{}  {}", server.name(), server.connect(), server.endpoint());
        }
        let _ = write!(text, "{:?}", self.credentials());
        Ok(text)
    }
}

fn logins(attempts: &[LoginAttempt], count: usize) -> String {
    let mut text = String::new();
    for LoginAttempt { at, server, user, from, verdict } in attempts.iter().rev().take(count).rev() {
        let verdict =
            verdict.map_or_else(|refusal| format!("refused: {refusal}"), |()| "accepted".to_owned());
        let _ = writeln!(text, "{at:.3}  {server}  {user} from {from}  {verdict}");
    }
    let busiest = busiest_second(attempts.iter().map(|attempt| attempt.at));
    let _ = write!(text, "{} attempts, at most {busiest} in one second", attempts.len());
    text
}
