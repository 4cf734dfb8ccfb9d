//! From error numbers of MySQL and MariaDB to [`Fault`].
//!
//! Decided by number, never by message: messages are translated. Errors that an operator can fix
//! come with advice.
//!
//! <https://dev.mysql.com/doc/mysql-errors/8.4/en/server-error-reference.html>,
//! <https://mariadb.com/kb/en/mariadb-error-codes/>

use agent_core::{Fault, FaultKind, Phase};

use super::wire::{ServerError, WireError};
use crate::dial::io_fault;

/// The fault for an error of the server.
pub(super) fn refused(phase: Phase, error: &ServerError) -> Fault {
    let mut message = error.message.clone();
    if let Some(advice) = advice(error.number) {
        message.push_str(": ");
        message.push_str(advice);
    }
    Fault::new(phase, kind_of(phase, error.number), message).with_code(error.number.to_string())
}

/// The fault for a broken connection.
pub(super) fn broken(phase: Phase, error: &WireError) -> Fault {
    let fault = match error {
        WireError::Lost(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
            Fault::new(phase, FaultKind::Disconnected, "the server closed the connection")
        }
        WireError::Lost(error) => io_fault(phase, error, "the connection broke"),
        WireError::Malformed(malformed) => {
            return Fault::new(phase, FaultKind::Protocol, malformed.to_string());
        }
    };
    if fault.kind != FaultKind::Disconnected {
        return fault;
    }
    let message = format!("{}: {}", fault.message, lost(phase));
    Fault { message, ..fault }.with_code(LOST)
}

/// `CR_SERVER_LOST`, as clients report a lost connection.
const LOST: &str = "2013";

/// Likely reasons for a connection that ended without an error message.
fn lost(phase: Phase) -> &'static str {
    if phase < Phase::Query {
        "the server, or something between, ends connections before their login: check connect_timeout, \
         the port, and whether the server is shutting down"
    } else {
        "possible reasons are KILL or mysql.rds_kill, wait_timeout, a packet above max_allowed_packet, and a \
         server that has stopped"
    }
}

/// What an error number means in a phase.
///
/// On an open session a shutdown or a kill means a lost connection: the server may be shutting
/// down, or an administrator may have ended this session alone, and only the next login shows
/// which. At a login they mean that the server is shutting down.
pub(super) fn kind_of(phase: Phase, number: u16) -> FaultKind {
    match number {
        // init_connect failed for this user.
        1184 if phase < Phase::Query => FaultKind::PermissionDenied,
        // The server shuts down (1053, 1077, 1079), or takes no clients (3032).
        1053 | 1077 | 1079 | 3032 if phase < Phase::Query => FaultKind::StartingUp,
        _ if ends_session(number) => FaultKind::Disconnected,
        1129 => FaultKind::HostBlocked,
        // No free slot of the server.
        1040 => FaultKind::TooManyConnections,
        // A limit of the agent's own user, by max_user_connections or by its account.
        1203 => FaultKind::PermissionDenied,
        1226 if phase < Phase::Query => FaultKind::PermissionDenied,
        // Access denied; plugin not loaded; other plugin; password expired; account locked; TLS required.
        1045 | 1251 | 1524 | 1698 | 1820 | 1862 | 3118 | 3159 | 3955 | 4151 => FaultKind::LoginRefused,
        // Host, database, privilege, table, column, routine; KILL of another user's session.
        1130 | 1044 | 1227 | 1142 | 1143 | 1370 | 1095 => FaultKind::PermissionDenied,
        // The agent's own statement timeout: MariaDB, MySQL.
        1969 | 3024 => FaultKind::TimedOut,
        // Bad handshake, unknown command, malformed packet.
        1043 | 1047 | 1835 => FaultKind::Protocol,
        // Including 1290, whose number does not say which option forbids the statement.
        _ => FaultKind::DatabaseError,
    }
}

/// Whether the server ends the session with this error.
pub(super) fn ends_session(number: u16) -> bool {
    matches!(
        number,
        // Shutdown; forced close; aborted; a packet too large, unreadable, out of order or not in time.
        1053 | 1077 | 1079 | 1080 | 1152
            ..=1161 | 1184
        // Killed (MariaDB); offline mode; idle for too long (MySQL).
        | 1927 | 3032 | 4031
    )
}

/// Whether a statement was refused because the agent may not run it, or because this server has
/// no such thing. Either says nothing about anything else.
pub(super) fn not_available(number: u16) -> bool {
    matches!(
        number,
        // Denied: database, table, column, routine, privilege.
        1044 | 1142 | 1143 | 1370 | 1227 | 1345
        // Unknown: database, table, table in this place, column, variable, routine.
        | 1049 | 1146 | 1109 | 1054 | 1193 | 1305
    )
}

/// How to fix it, where an operator can.
fn advice(number: u16) -> Option<&'static str> {
    Some(match number {
        1045 => {
            "servers report \"using password: NO\" also when a token was sent. Check that the token is signed \
             for this user, host, port and region and has not expired, and that the agent's role allows \
             rds-db:connect"
        }
        1129 => {
            "too many connections from this address ended before their login (for example TCP or TLS health \
             checks), so the server refuses all connections from it. Run TRUNCATE TABLE \
             performance_schema.host_cache (before MySQL 8.4 and in MariaDB also FLUSH HOSTS) to unblock it, \
             stop such checks, and raise max_connect_errors"
        }
        1130 => "no account matches this address: create the user for it, or for '%'",
        1040 => "max_connections is reached",
        1184 => "init_connect fails for the agent's user: grant what it needs",
        1203 => "max_user_connections is reached for the agent's user",
        1226 => {
            "a resource limit of this user is reached: ALTER USER ... WITH MAX_USER_CONNECTIONS 0 removes it"
        }
        1251 => "the user is not identified with AWSAuthenticationPlugin",
        1524 => "the user's plugin is not loaded: check that IAM authentication is on for this instance",
        1698 => {
            "the user logs in by another plugin: check that it is identified with AWSAuthenticationPlugin"
        }
        1820 | 1862 => {
            "the user's password has expired, so it is not identified with AWSAuthenticationPlugin"
        }
        3118 | 4151 => "the account is locked: ALTER USER ... ACCOUNT UNLOCK unlocks it",
        3955 => {
            "the account is locked temporarily after too many failed logins (FAILED_LOGIN_ATTEMPTS): \
             ALTER USER ... ACCOUNT UNLOCK unlocks it"
        }
        3159 => {
            "the server sees this connection without TLS although the agent uses TLS: something between them \
             terminates TLS"
        }
        3032 => "only administrators may log in while offline_mode is on",
        1290 => {
            "the option named in the message forbids it: read_only is on for replicas and for writers that \
             have been made read-only"
        }
        1792 | 1836 => "the instance is read-only",
        1044 => "grant the agent's user a privilege on this database, or configure another one",
        1049 => "there is no database of this name: leave it out, or configure another one",
        1142 | 1143 | 1227 | 1370 => "a privilege is missing; deploy/mysql/agent.sql grants what is needed",
        1095 => "closing other users' sessions needs CONNECTION_ADMIN, or mysql.rds_kill on RDS",
        1205 => "another session holds the lock for longer than the agent waits",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, io};

    use agent_core::Evidence;
    use proptest::prelude::*;

    use super::*;
    use crate::mysql::wire::Malformed;

    fn error(number: u16) -> ServerError {
        ServerError { number, sqlstate: None, message: "the server's message".to_owned() }
    }

    #[test]
    fn each_error_number_has_its_kind() {
        let cases = [
            (Phase::Login, 1045, FaultKind::LoginRefused),
            (Phase::Login, 1698, FaultKind::LoginRefused),
            (Phase::Login, 3118, FaultKind::LoginRefused),
            (Phase::Login, 3955, FaultKind::LoginRefused),
            (Phase::Login, 1524, FaultKind::LoginRefused),
            (Phase::Login, 1251, FaultKind::LoginRefused),
            (Phase::Login, 3159, FaultKind::LoginRefused),
            (Phase::Login, 1129, FaultKind::HostBlocked),
            (Phase::Login, 1130, FaultKind::PermissionDenied),
            (Phase::Login, 1040, FaultKind::TooManyConnections),
            (Phase::Login, 1203, FaultKind::PermissionDenied),
            (Phase::Login, 1226, FaultKind::PermissionDenied),
            (Phase::Login, 1184, FaultKind::PermissionDenied),
            (Phase::Query, 1226, FaultKind::DatabaseError),
            (Phase::Login, 1053, FaultKind::StartingUp),
            (Phase::Query, 1053, FaultKind::Disconnected),
            (Phase::Login, 3032, FaultKind::StartingUp),
            (Phase::Query, 1927, FaultKind::Disconnected),
            (Phase::Query, 4031, FaultKind::Disconnected),
            (Phase::Query, 1227, FaultKind::PermissionDenied),
            (Phase::Query, 1142, FaultKind::PermissionDenied),
            (Phase::Query, 1370, FaultKind::PermissionDenied),
            (Phase::Query, 1095, FaultKind::PermissionDenied),
            (Phase::Query, 1290, FaultKind::DatabaseError),
            (Phase::Query, 1205, FaultKind::DatabaseError),
            (Phase::Query, 1094, FaultKind::DatabaseError),
            (Phase::Query, 1969, FaultKind::TimedOut),
            (Phase::Query, 3024, FaultKind::TimedOut),
            (Phase::Login, 1049, FaultKind::DatabaseError),
            (Phase::Login, 1043, FaultKind::Protocol),
        ];
        for (phase, number, kind) in cases {
            assert_eq!(kind_of(phase, number), kind, "{number}");
        }
    }

    #[test]
    fn each_error_has_its_own_advice() {
        let numbers = [
            1045, 1129, 1130, 1040, 1203, 1226, 1251, 1290, 1524, 1698, 1792, 3032, 3118, 3159, 3955, 1205,
            1227,
        ];
        let words: BTreeSet<_> = numbers.iter().filter_map(|&number| advice(number)).collect();
        assert_eq!(words.len(), numbers.len());
        let fault = refused(Phase::Login, &error(1129));
        assert_eq!(fault.code.as_deref(), Some("1129"));
        for word in ["the server's message", "host_cache", "max_connect_errors"] {
            assert!(fault.message.contains(word), "{fault}");
        }
        // MySQL 8.4 supports only the first.
        let cures = ["TRUNCATE", "FLUSH"].map(|cure| fault.message.find(cure).unwrap());
        assert!(cures[0] < cures[1], "{fault}");
    }

    #[test]
    fn a_closed_stream_is_a_lost_connection() {
        let closed = WireError::Lost(io::ErrorKind::UnexpectedEof.into());
        let fault = broken(Phase::Query, &closed);
        assert_eq!((fault.kind, fault.evidence()), (FaultKind::Disconnected, Evidence::Silent));
        assert!(fault.message.starts_with("the server closed the connection: "), "{fault}");
        for reason in ["KILL", "wait_timeout", "max_allowed_packet"] {
            assert!(fault.message.contains(reason), "{fault}");
        }
        let reset = WireError::Lost(io::ErrorKind::ConnectionReset.into());
        for (phase, reason) in [(Phase::Query, "wait_timeout"), (Phase::Login, "connect_timeout")] {
            let fault = broken(phase, &reset);
            assert_eq!((fault.kind, fault.code.as_deref()), (FaultKind::Disconnected, Some("2013")));
            assert!(fault.message.contains(reason), "{fault}");
        }
        let malformed = WireError::Malformed(Malformed("a packet out of its order"));
        let fault = broken(Phase::Query, &malformed);
        assert_eq!((fault.kind, fault.evidence()), (FaultKind::Protocol, Evidence::Nothing));
    }

    proptest! {
        /// An error on an open session comes from a living server.
        #[test]
        fn no_answer_to_a_query_proves_a_server_down(number: u16) {
            let evidence = refused(Phase::Query, &error(number)).evidence();
            prop_assert_ne!(evidence, Evidence::Down);
        }

        #[test]
        fn an_error_that_ends_a_session_is_a_lost_connection(number: u16) {
            prop_assert_eq!(ends_session(number), kind_of(Phase::Query, number) == FaultKind::Disconnected);
        }
    }
}
