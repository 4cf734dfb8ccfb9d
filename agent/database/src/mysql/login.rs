//! From a target and a token to an open session.
//!
//! The server speaks first, in the clear. The agent sends only the request for TLS in the clear;
//! user and token are sent over the verified stream.
//!
//! A MySQL server counts each connection that ends before its login is complete, and blocks the
//! client address after `max_connect_errors` of them (1129). So once TLS is up the login is
//! completed whatever the server requests, if necessary with an empty response. A refused
//! certificate ends the connection earlier and is counted; such attempts therefore have to be
//! rare.

use std::{future::Future, time::Duration};

use agent_core::{Fault, FaultKind, Phase};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::{Instant, timeout},
};

use super::{
    classify,
    gate::{LoginGate, Step, TokenNotAsked},
    session::MySqlSession,
    version::ServerVersion,
    wire::{
        Packets, ServerError, Wire, WireError,
        greeting::{Greeting, LARGEST_GREETING, capability},
        request::{NEEDED, login_request, tls_request},
    },
};
use crate::{
    dial::{self, during, io_fault},
    report::LoginReport,
    target::{Limits, Target},
    tls::{self, VerifiedStream},
    trust::TlsTrust,
};

/// MySQL's ALPN protocol name.
const ALPN: &[u8] = b"mysql";

/// Far above the size of any packet of a login.
const LARGEST_ANSWER: usize = 64 * 1024;

pub(super) async fn login(
    target: &Target,
    trust: &TlsTrust,
    token: &str,
    limits: &Limits,
    report: &mut LoginReport,
) -> Result<MySqlSession, Fault> {
    let started = Instant::now();
    let addresses = dial::resolve(&target.connect, limits.dns).await;
    report.phases.note(Phase::Dns, started.elapsed());
    let addresses = addresses?;

    let started = Instant::now();
    let stream = dial::connect(&addresses, target.source, limits.tcp, report).await;
    report.phases.note(Phase::Tcp, started.elapsed());
    let stream = stream?;

    let started = Instant::now();
    let secured = within(Phase::Tls, limits.tls, secure(stream, target, trust, report)).await;
    report.phases.note(Phase::Tls, started.elapsed());
    let (packets, greeting) = secured?;

    let started = Instant::now();
    let handed = hand_over(packets, &greeting, target, token, limits, report);
    let session = within(Phase::Login, limits.login, Box::pin(handed)).await;
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

/// Reads the greeting and requests TLS. Nothing about the login is sent in the clear.
async fn secure(
    mut stream: TcpStream,
    target: &Target,
    trust: &TlsTrust,
    report: &mut LoginReport,
) -> Result<(Packets<VerifiedStream>, Greeting), Fault> {
    let broken = |error: WireError| classify::broken(Phase::Tls, &error);
    let mut packets = Packets::new(&mut stream);
    let packet = packets.read(LARGEST_GREETING).await.map_err(broken)?;
    if packet.first() == Some(&0xff) {
        // Too many connections, or a blocked address: the login is refused without a greeting.
        let error = ServerError::parse(&packet).map_err(|malformed| broken(malformed.into()))?;
        return Err(classify::refused(Phase::Login, &error));
    }
    let greeting = Greeting::parse(&packet).map_err(|malformed| broken(malformed.into()))?;
    report.server_version = Some(ServerVersion::of_greeting(&greeting.version).to_string());
    if !greeting.can(capability::SSL) {
        return Err(Fault::new(
            Phase::Tls,
            FaultKind::TlsNotOffered,
            "the server does not offer TLS, so no token was sent",
        ));
    }
    if !greeting.can(NEEDED) {
        return Err(Fault::new(
            Phase::Tls,
            FaultKind::Protocol,
            "the server does not support authentication plugins, so no token was sent",
        ));
    }
    packets.write(&tls_request(&greeting, target)).await.map_err(broken)?;
    let number = packets.number();
    nothing_more(&stream)?;
    let stream = tls::handshake(stream, &target.endpoint, trust, ALPN, report).await?;
    Ok((Packets::counting_from(stream, number), greeting))
}

/// After the request for TLS the server waits for the handshake, so bytes that have arrived by
/// now were injected after its greeting. Later ones break the handshake.
fn nothing_more(stream: &TcpStream) -> Result<(), Fault> {
    match stream.try_read(&mut [0]) {
        Ok(0) => Err(Fault::new(Phase::Tls, FaultKind::Disconnected, "the server closed the connection")),
        Ok(_) => Err(Fault::new(
            Phase::Tls,
            FaultKind::Protocol,
            "unexpected data followed the server's greeting in the clear, so no token was sent",
        )),
        Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => Ok(()),
        Err(error) => Err(io_fault(Phase::Tls, &error, "requesting TLS")),
    }
}

/// Sends user and token over the verified stream, then sets up the session.
async fn hand_over(
    packets: Packets<VerifiedStream>,
    greeting: &Greeting,
    target: &Target,
    token: &str,
    limits: &Limits,
    report: &mut LoginReport,
) -> Result<MySqlSession, Fault> {
    let mut wire = authenticate(packets, greeting, target, token, &mut report.token_asked).await?;
    let mut server = ServerVersion::of_greeting(&greeting.version);
    set_up(&mut wire, &mut server, limits).await?;
    report.server_version = Some(server.to_string());
    Ok(MySqlSession::new(wire, server, limits.query))
}

/// The login itself. Generic for the tests only: otherwise the stream is a [`VerifiedStream`].
async fn authenticate<S: AsyncRead + AsyncWrite + Unpin>(
    mut packets: Packets<S>,
    greeting: &Greeting,
    target: &Target,
    token: &str,
    asked: &mut bool,
) -> Result<Wire<S>, Fault> {
    let broken = |error: WireError| classify::broken(Phase::Login, &error);
    packets.write(&login_request(greeting, target)).await.map_err(broken)?;
    let mut gate = LoginGate::default();
    loop {
        let packet = packets.read(LARGEST_ANSWER).await.map_err(broken)?;
        let step = gate.step(&packet).map_err(|malformed| broken(malformed.into()))?;
        *asked = gate.asked();
        match step {
            Step::SendToken => {
                packets.write(&[token.as_bytes(), &[0]].concat()).await.map_err(broken)?;
            }
            Step::Accepted => return Ok(Wire::new(packets)),
            Step::Refused(error) => return Err(login_refused(&error, &gate)),
            Step::Decline(wanted) => return Err(decline(packets, gate, &wanted).await),
        }
    }
}

/// The fault for a refusal. A server that never requested the token refused for another reason
/// than the token.
fn login_refused(error: &ServerError, gate: &LoginGate) -> Fault {
    if gate.asked() || classify::kind_of(Phase::Login, error.number) != FaultKind::LoginRefused {
        return classify::refused(Phase::Login, error);
    }
    let message = format!(
        "{}: the server did not request a token, so none was sent: \
         check that the user is identified with AWSAuthenticationPlugin",
        error.message
    );
    Fault::new(Phase::Login, FaultKind::LoginRefused, message).with_code(error.number.to_string())
}

/// Ends a login that does not use IAM with an empty response and the server's refusal of it, so
/// that the server does not count the connection as aborted.
async fn decline<S: AsyncRead + AsyncWrite + Unpin>(
    mut packets: Packets<S>,
    mut gate: LoginGate,
    wanted: &TokenNotAsked,
) -> Fault {
    let fault = Fault::new(Phase::Login, FaultKind::LoginRefused, wanted.to_string());
    if packets.write(wanted.answer()).await.is_err() {
        return fault;
    }
    let Ok(answer) = packets.read(LARGEST_ANSWER).await else { return fault };
    if gate.step(&answer) == Ok(Step::Accepted) {
        // An account without a password: not an IAM user.
        Wire::new(packets).quit().await;
    }
    fault
}

/// Sets up the session and reads the version, in one round trip. A setting that this server does not
/// have or does not allow is skipped: it is no reason to do without the session.
async fn set_up<S: AsyncRead + AsyncWrite + Unpin>(
    wire: &mut Wire<S>,
    server: &mut ServerVersion,
    limits: &Limits,
) -> Result<(), Fault> {
    const WHAT: &str = "setting up the session";
    let mut statements = settings(server, limits);
    statements.push(VERSION.to_owned());
    let mut rest = &statements[..];
    while !rest.is_empty() {
        let answered = wire.query(&rest.join(";")).await;
        let answered = answered.map_err(|error| during(WHAT, classify::broken(Phase::Login, &error)))?;
        for row in answered.results.iter().flat_map(|result| &result.rows) {
            let [Some(name), Some(value)] = &row[..] else { continue };
            match &**name {
                "version_comment" => server.comment = Some(value.clone()),
                "aurora_version" => server.aurora = Some(value.clone()),
                "transaction_read_only" => server.read_only_default = Some("transaction_read_only"),
                "tx_read_only" => server.read_only_default = Some("tx_read_only"),
                _ => {}
            }
        }
        match &answered.refused {
            None => break,
            Some(error) if classify::ends_session(error.number) => {
                return Err(during(WHAT, classify::refused(Phase::Login, error)));
            }
            Some(_) => rest = rest.get(answered.results.len() + 1..).unwrap_or_default(),
        }
    }
    Ok(())
}

/// Variables that a server does not have are missing from the result.
const VERSION: &str = "SHOW GLOBAL VARIABLES WHERE variable_name IN \
     ('version_comment', 'aurora_version', 'transaction_read_only', 'tx_read_only')";

/// Settings of the agent's own sessions, whatever the server's defaults, `init_connect` and the
/// user's own limits are.
///
/// No transaction stays open, literals and times mean the same everywhere, and nothing waits for
/// locks of others. Results are complete: a short process list or a short list of transactions
/// would make sessions look idle that are not. An idle connection stays open for longer than any of
/// the agent's intervals. The server cancels a query a little before the agent's own limit, so that
/// the session stays usable; MySQL does that for SELECT only.
fn settings(server: &ServerVersion, limits: &Limits) -> Vec<String> {
    let statement_ms = (limits.query * 3 / 4).as_millis().max(1);
    let timeout = if server.mariadb {
        format!("max_statement_time = {}.{:03}", statement_ms / 1_000, statement_ms % 1_000)
    } else {
        format!("max_execution_time = {statement_ms}")
    };
    vec![
        format!(
            "SET NAMES utf8mb4, SESSION autocommit = 1, SESSION sql_mode = '', SESSION time_zone = '+00:00', \
             SESSION lock_wait_timeout = 1, SESSION {timeout}"
        ),
        format!("SET SESSION sql_select_limit = {}", u64::MAX),
        format!("SET SESSION max_join_size = {}", u64::MAX),
        "SET SESSION sql_big_selects = 1".to_owned(),
        "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED, READ WRITE".to_owned(),
        "SET SESSION completion_type = 0".to_owned(),
        "SET SESSION wait_timeout = 3600".to_owned(),
    ]
}

#[cfg(test)]
mod tests {
    use agent_core::InstanceId;
    use proptest::prelude::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};

    use super::*;
    use crate::{
        mysql::wire::testing::{packet, run},
        target::Address,
    };

    const TOKEN: &str = "a.example:3306/?Action=connect&X-Amz-Signature=a-made-up-token";

    /// A login and its set-up against a server that sends all of this at once: what the server
    /// has read, whether it requested the token, and the result.
    fn converse(server_bytes: &[u8]) -> (Vec<u8>, bool, Result<ServerVersion, Fault>) {
        run(async {
            let (ours, theirs) = duplex(1 << 20);
            let (mut reader, mut writer) = tokio::io::split(theirs);
            writer.write_all(server_bytes).await.unwrap();
            writer.shutdown().await.unwrap();
            let endpoint = Address::new("a.example", 3306);
            let target = Target::new(InstanceId::new("orders", "a"), endpoint, "lb_agent", "");
            let greeting = Greeting { version: "8.0.39".to_owned(), capabilities: u32::MAX };
            let packets = Packets::counting_from(ours, 2);
            let mut asked = false;
            let outcome = match authenticate(packets, &greeting, &target, TOKEN, &mut asked).await {
                Ok(mut wire) => {
                    let mut server = ServerVersion::of_greeting(&greeting.version);
                    let outcome = set_up(&mut wire, &mut server, &Limits::default()).await;
                    wire.quit().await;
                    outcome.map(|()| server)
                }
                Err(fault) => Err(fault),
            };
            let mut read = Vec::new();
            reader.read_to_end(&mut read).await.unwrap();
            (read, asked, outcome)
        })
    }

    fn tokens_in(read: &[u8]) -> usize {
        read.windows(12).filter(|window| TOKEN.as_bytes().ends_with(window)).count()
    }

    const SWITCH: &[u8] = b"\xfemysql_clear_password\0";
    const OK: &[u8] = &[0, 0, 0, 2, 0, 0, 0];

    /// A packet that servers send in logins and answers, or arbitrary bytes.
    fn payload() -> impl Strategy<Value = Vec<u8>> {
        prop_oneof![
            Just(SWITCH.to_vec()),
            Just(b"\xfedialog\0\x04Password: ".to_vec()),
            Just(vec![1, 4]),
            Just(OK.to_vec()),
            Just(vec![0, 0, 0, 0x0a, 0, 0, 0]),
            Just(vec![0xfe, 0, 0, 2, 0]),
            Just(vec![1]),
            Just(b"\xff\x15\x04#28000Access denied".to_vec()),
            proptest::collection::vec(any::<u8>(), 0..60),
        ]
    }

    proptest! {
        /// Whole conversations with correct packet numbers: no panic, no endless loop, and the
        /// token is sent at most once, and only to a server whose first packet requests it.
        #[test]
        fn no_conversation_receives_more_than_one_token(payloads in proptest::collection::vec(payload(), 0..12)) {
            let numbers = [3, 5].into_iter().chain(1..);
            let server_bytes: Vec<u8> =
                numbers.zip(&payloads).flat_map(|(number, payload)| packet(number, payload)).collect();
            let (read, asked, outcome) = converse(&server_bytes);
            let first_asks = payloads.first().is_some_and(|payload| payload.starts_with(SWITCH));
            prop_assert_eq!(asked, first_asks);
            prop_assert_eq!(tokens_in(&read), usize::from(first_asks));
            if let Err(fault) = outcome {
                prop_assert!(!fault.to_string().contains(TOKEN));
                prop_assert_ne!(fault.evidence(), agent_core::Evidence::Down);
            }
        }

        #[test]
        fn arbitrary_bytes_never_receive_the_token(server_bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let (read, _, outcome) = converse(&server_bytes);
            prop_assert!(outcome.is_err());
            prop_assert_eq!(tokens_in(&read), 0);
        }

        /// A conversation cut off at any byte is a lost connection, not a login.
        #[test]
        fn a_truncated_login_is_a_lost_connection(cut in 1_usize..60) {
            let server_bytes = [packet(3, SWITCH), packet(5, OK), packet(1, OK)].concat();
            let (_, _, outcome) = converse(&server_bytes);
            prop_assert!(outcome.is_ok());
            let (_, _, outcome) = converse(&server_bytes[..server_bytes.len().saturating_sub(cut)]);
            prop_assert_eq!(outcome.unwrap_err().kind, FaultKind::Disconnected);
        }
    }

    #[test]
    fn the_statement_timeout_is_shorter_than_the_agents_own() {
        let limits = Limits { query: Duration::from_secs(2), ..Limits::default() };
        let mariadb = ServerVersion::of_greeting("5.5.5-10.11.19-MariaDB");
        let first = |server: &ServerVersion, limits: &Limits| settings(server, limits).swap_remove(0);
        assert!(first(&mariadb, &limits).ends_with("max_statement_time = 1.500"));
        let mysql = ServerVersion::of_greeting("8.0.39");
        assert!(first(&mysql, &limits).ends_with("max_execution_time = 1500"));
        // Zero would mean no limit at all.
        let none = Limits { query: Duration::ZERO, ..Limits::default() };
        assert!(first(&mysql, &none).ends_with("max_execution_time = 1"));
        assert!(first(&mariadb, &none).ends_with("max_statement_time = 0.001"));
    }

    #[test]
    fn a_refusal_without_a_token_request_has_its_own_message() {
        let error = |number| ServerError { number, sqlstate: None, message: "Access denied".to_owned() };
        let mut gate = LoginGate::default();
        let fault = login_refused(&error(1045), &gate);
        assert!(fault.message.contains("did not request a token"), "{fault}");
        let fault = login_refused(&error(1040), &gate);
        assert!(fault.message.contains("max_connections"), "{fault}");
        gate.step(b"\xfemysql_clear_password\0").unwrap();
        let fault = login_refused(&error(1045), &gate);
        assert!(fault.message.contains("rds-db:connect"), "{fault}");
        assert_eq!(fault.code.as_deref(), Some("1045"));
    }
}
