//! From SQLSTATE and driver errors to [`Fault`].
//!
//! Decided by SQLSTATE, never by message: messages are translated, and all refused IAM logins
//! have the same one (`28000 PAM authentication failed`).

use std::{error::Error as _, fmt::Write as _, io};

use agent_core::{Fault, FaultKind, Phase};
use tokio_postgres::error::DbError;

use super::gate::TokenNotAsked;
use crate::dial::{chain, io_fault};

/// The fault for an error of the driver.
pub(super) fn fault(phase: Phase, error: &tokio_postgres::Error) -> Fault {
    if let Some(database) = error.as_db_error() {
        let code = database.code().code();
        if code == "53300" && database.routine().is_some_and(|routine| OWN_LIMITS.contains(&routine)) {
            let message = format!("{}: raise the CONNECTION LIMIT", in_words(database));
            return Fault::new(phase, FaultKind::PermissionDenied, message).with_code(code);
        }
        return Fault::new(phase, kind_of(phase, code), in_words(database)).with_code(code);
    }
    if let Some(io) = error.source().and_then(|source| source.downcast_ref::<io::Error>()) {
        if let Some(refused) = io.get_ref().and_then(|inner| inner.downcast_ref::<TokenNotAsked>()) {
            return Fault::new(phase, FaultKind::LoginRefused, refused.to_string());
        }
        return io_fault(phase, io, "the connection broke");
    }
    if error.is_closed() {
        return Fault::new(phase, FaultKind::Disconnected, "the server closed the connection");
    }
    Fault::new(phase, FaultKind::Protocol, chain(error))
}

/// The server's functions that enforce the connection limits of a role and of a database. Those
/// limits are the agent's own, while 53300 from elsewhere means that the server has no free slot.
const OWN_LIMITS: [&str; 2] = ["InitializeSessionUserId", "CheckMyDatabase"];

/// What a SQLSTATE means in a phase.
///
/// On an open session 57P01 and 57P02 mean a lost connection: the server may be shutting down,
/// or an administrator may have closed this session alone, and only the next login shows which.
/// At a login they mean that the server is shutting down.
pub(super) fn kind_of(phase: Phase, code: &str) -> FaultKind {
    match code {
        _ if code.starts_with("28") => FaultKind::LoginRefused,
        "57P03" => FaultKind::StartingUp,
        "57P01" | "57P02" if phase < Phase::Query => FaultKind::StartingUp,
        // 57P04: the database was dropped. 57P05, 25P03: idle for too long.
        "57P01" | "57P02" | "57P04" | "57P05" | "25P03" => FaultKind::Disconnected,
        "53300" => FaultKind::TooManyConnections,
        "42501" => FaultKind::PermissionDenied,
        // The agent's own statement timeout.
        "57014" => FaultKind::TimedOut,
        _ if code.starts_with("08") => FaultKind::Protocol,
        _ => FaultKind::DatabaseError,
    }
}

/// Whether the server ends the session with this error.
pub(super) fn ends_session(error: &tokio_postgres::Error) -> bool {
    error.as_db_error().is_none_or(|database| matches!(database.severity(), "FATAL" | "PANIC"))
}

fn in_words(error: &DbError) -> String {
    let mut words = format!("{}: {}", error.severity(), error.message());
    for (label, text) in [("detail", error.detail()), ("hint", error.hint())] {
        if let Some(text) = text {
            // Writing to a String cannot fail.
            let _ = write!(words, " ({label}: {text})");
        }
    }
    words
}

#[cfg(test)]
mod tests {
    use agent_core::Evidence;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn each_sqlstate_has_its_kind() {
        let cases = [
            (Phase::Login, "28000", FaultKind::LoginRefused),
            (Phase::Login, "28P01", FaultKind::LoginRefused),
            (Phase::Login, "57P03", FaultKind::StartingUp),
            (Phase::Login, "57P01", FaultKind::StartingUp),
            (Phase::Query, "57P01", FaultKind::Disconnected),
            (Phase::Query, "57P02", FaultKind::Disconnected),
            (Phase::Query, "57P05", FaultKind::Disconnected),
            (Phase::Login, "53300", FaultKind::TooManyConnections),
            (Phase::Login, "53200", FaultKind::DatabaseError),
            (Phase::Query, "42501", FaultKind::PermissionDenied),
            (Phase::Query, "57014", FaultKind::TimedOut),
            (Phase::Login, "3D000", FaultKind::DatabaseError),
            (Phase::Query, "08P01", FaultKind::Protocol),
        ];
        for (phase, code, kind) in cases {
            assert_eq!(kind_of(phase, code), kind, "{code}");
        }
    }

    proptest! {
        /// An error on an open session comes from a living server.
        #[test]
        fn no_answer_to_a_query_proves_a_server_down(code in "[0-9A-Z]{5}") {
            prop_assume!(code != "57P03");
            let evidence = Fault::new(Phase::Query, kind_of(Phase::Query, &code), "").evidence();
            prop_assert_ne!(evidence, Evidence::Down);
        }

        #[test]
        fn class_28_is_a_refused_login(rest in "[0-9A-Z]{3}") {
            prop_assert_eq!(kind_of(Phase::Login, &format!("28{rest}")), FaultKind::LoginRefused);
        }
    }
}
