//! From a target and a token to an open session.
//!
//! DNS, TCP and TLS are done here, so that each phase has its own duration, limit and faults;
//! the driver takes over on the verified stream.

use std::{
    future::{Future, Ready, ready},
    sync::atomic::Ordering,
    time::Duration,
};

use agent_core::{Fault, FaultKind, Phase};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{Instant, timeout},
};
use tokio_postgres::{
    Config,
    config::{ChannelBinding, SslMode, SslNegotiation},
    tls::TlsConnect,
};

use super::{classify, gate::LoginGate, session::PostgresqlSession};
use crate::{
    dial::{self, io_fault},
    report::LoginReport,
    target::{Limits, Target},
    tls::{self, VerifiedStream},
    trust::TlsTrust,
};

/// `SSLRequest`: its length, and the code 1234.5679.
const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f];

/// PostgreSQL's ALPN protocol name, which servers check from 17 on.
const ALPN: &[u8] = b"postgresql";

pub(super) async fn login(
    target: &Target,
    trust: &TlsTrust,
    token: &str,
    limits: &Limits,
    report: &mut LoginReport,
) -> Result<PostgresqlSession, Fault> {
    let started = Instant::now();
    let addresses = dial::resolve(&target.connect, limits.dns).await;
    report.phases.note(Phase::Dns, started.elapsed());
    let addresses = addresses?;

    let started = Instant::now();
    let stream = dial::connect(&addresses, target.source, limits.tcp, report).await;
    report.phases.note(Phase::Tcp, started.elapsed());
    let stream = stream?;

    let started = Instant::now();
    let stream = within(Phase::Tls, limits.tls, secure(stream, target, trust, report)).await;
    report.phases.note(Phase::Tls, started.elapsed());
    let stream = stream?;

    let started = Instant::now();
    let session =
        within(Phase::Login, limits.login, Box::pin(hand_over(stream, target, token, limits, report))).await;
    report.phases.note(Phase::Login, started.elapsed());
    session
}

async fn within<T>(
    phase: Phase,
    limit: Duration,
    step: impl Future<Output = Result<T, Fault>>,
) -> Result<T, Fault> {
    timeout(limit, step).await.unwrap_or_else(|_| {
        Err(Fault::new(phase, FaultKind::TimedOut, format!("no answer within {limit:?}")))
    })
}

/// Requests TLS. Nothing about the login is sent in the clear.
async fn secure(
    mut stream: TcpStream,
    target: &Target,
    trust: &TlsTrust,
    report: &mut LoginReport,
) -> Result<VerifiedStream, Fault> {
    let broken = |error| io_fault(Phase::Tls, &error, "asking for TLS");
    stream.write_all(&SSL_REQUEST).await.map_err(broken)?;
    // Exactly one byte: data injected after it must not become part of the TLS stream.
    match stream.read_u8().await.map_err(broken)? {
        b'S' => tls::handshake(stream, &target.endpoint, trust, ALPN, report).await,
        b'N' => Err(Fault::new(
            Phase::Tls,
            FaultKind::TlsNotOffered,
            "the server does not offer TLS, so no token was sent",
        )),
        other => Err(Fault::new(
            Phase::Tls,
            FaultKind::Protocol,
            format!("not an answer of PostgreSQL to a request for TLS: byte {other:#04x}"),
        )),
    }
}

/// Sends user and token over the verified stream.
async fn hand_over(
    stream: VerifiedStream,
    target: &Target,
    token: &str,
    limits: &Limits,
    report: &mut LoginReport,
) -> Result<PostgresqlSession, Fault> {
    let mut config = Config::new();
    config
        .user(&*target.user)
        .password(token)
        .dbname(&*target.database_name)
        .application_name(&*target.application_name)
        .options(&*session_options(limits))
        // TLS is up already: the driver must not request it again.
        .ssl_mode(SslMode::Require)
        .ssl_negotiation(SslNegotiation::Direct)
        .channel_binding(ChannelBinding::Disable);
    let (gate, asked) = LoginGate::new(stream);
    let outcome = config.connect_raw(gate, AlreadySecure).await;
    report.token_asked = asked.load(Ordering::Relaxed);
    let (client, connection) = outcome.map_err(|error| classify::fault(Phase::Login, &error))?;
    report.server_version = connection.parameter("server_version").map(str::to_owned);
    let convertible =
        connection.parameter("server_encoding").is_some_and(|encoding| CONVERTIBLE.contains(&encoding));
    let mut session = PostgresqlSession::new(client, connection, limits.query);
    session.try_execute(if convertible { NO_TIMEOUTS } else { NO_TIMEOUTS_AND_NO_CONVERSION }).await?;
    Ok(session)
}

/// Encodings of the agent's database from which every string can be sent as UTF-8. From others the
/// conversion may fail for names and statements of sessions in databases of another encoding.
const CONVERTIBLE: [&str; 2] = ["UTF8", "LATIN1"];

/// Timeouts that older servers do not have, so they cannot be startup options.
const NO_TIMEOUTS: &str = "SELECT set_config(name, '0', false) FROM pg_settings \
     WHERE name IN ('idle_session_timeout', 'transaction_timeout')";

const NO_TIMEOUTS_AND_NO_CONVERSION: &str = "SET client_encoding = 'SQL_ASCII'; \
     SELECT set_config(name, '0', false) FROM pg_settings \
     WHERE name IN ('idle_session_timeout', 'transaction_timeout')";

/// Settings of the agent's own sessions, whatever the defaults of server, database and role.
///
/// Only `pg_catalog` is searched, so that no user's function can shadow a built-in one. A `role`
/// could take the agent's privileges away. A replica refuses every query of a serializable
/// transaction. The server cancels a query a little before the agent's own limit, so that the
/// session stays usable; other timeouts are off. JIT compilation would take longer than the
/// queries.
fn session_options(limits: &Limits) -> String {
    let statement_ms = (limits.query * 3 / 4).as_millis().max(1);
    format!(
        "-c search_path=pg_catalog -c role=none -c default_transaction_isolation=read\\ committed \
         -c statement_timeout={statement_ms} -c lock_timeout=0 -c idle_in_transaction_session_timeout=0 \
         -c jit=off"
    )
}

/// The driver's TLS connector, for a stream that is already encrypted.
struct AlreadySecure;

impl TlsConnect<LoginGate> for AlreadySecure {
    type Stream = LoginGate;
    type Error = std::io::Error;
    type Future = Ready<Result<LoginGate, std::io::Error>>;

    fn connect(self, stream: LoginGate) -> Self::Future {
        ready(Ok(stream))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_statement_timeout_is_shorter_than_the_agents_own() {
        let limits = Limits { query: Duration::from_secs(2), ..Limits::default() };
        assert!(session_options(&limits).contains("statement_timeout=1500"));
        // Zero would mean no limit at all.
        let none = Limits { query: Duration::ZERO, ..Limits::default() };
        assert!(session_options(&none).contains("statement_timeout=1 "));
    }
}
