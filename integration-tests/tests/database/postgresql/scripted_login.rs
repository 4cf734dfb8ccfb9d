//! Logins to servers that are ill, wrong or hostile.

use agent_core::{Evidence, FaultKind, Phase};

use super::scripted::{Certificate, Script, TOKEN, login};

/// Whether any piece of the token is in what the server read.
fn knows_the_token(read: &[u8]) -> bool {
    let piece = &TOKEN.as_bytes()[TOKEN.len() - 12..];
    read.windows(piece.len()).any(|window| window == piece)
}

#[tokio::test]
async fn a_server_that_starts_up_is_down() {
    for code in ["57P03", "57P01"] {
        let message: &'static [u8] = match code {
            "57P03" => b"E\x00\x00\x00\x2dSFATAL\0VFATAL\0C57P03\0Mit is starting up\0\0",
            _ => b"E\x00\x00\x00\x2bSFATAL\0VFATAL\0C57P01\0Mit is shut down\0\0",
        };
        assert_eq!(usize::from(message[4]) + 1, message.len());
        let (fault, report, read) = login(Script::Say(message), Certificate::default()).await;
        assert_eq!((fault.phase, fault.kind), (Phase::Login, FaultKind::StartingUp), "{fault}");
        assert_eq!(fault.code.as_deref(), Some(code));
        assert_eq!(fault.evidence(), Evidence::Down);
        assert!(!report.token_asked && !knows_the_token(&read));
    }
}

#[tokio::test]
async fn only_a_clear_password_is_ever_answered() {
    let md5 = b"R\x00\x00\x00\x0c\x00\x00\x00\x05salt";
    let scram = b"R\x00\x00\x00\x17\x00\x00\x00\x0aSCRAM-SHA-256\0\0";
    let gssapi = b"R\x00\x00\x00\x08\x00\x00\x00\x07";
    for (request, word) in [(&md5[..], "MD5"), (scram, "SCRAM"), (gssapi, "GSSAPI")] {
        let (fault, report, read) = login(Script::Say(request), Certificate::default()).await;
        assert_eq!((fault.phase, fault.kind), (Phase::Login, FaultKind::LoginRefused), "{fault}");
        assert!(fault.message.contains(word), "{fault}");
        assert!(!report.token_asked);
        // Nothing after the start of the login but perhaps the end of the stream.
        assert!(!read.contains(&b'p'.to_ascii_uppercase()) || !knows_the_token(&read));
        assert!(read.ends_with(b"\0\0"), "something was answered: {read:?}");
    }

    let clear = b"R\x00\x00\x00\x08\x00\x00\x00\x03";
    let (fault, report, read) = login(Script::Say(clear), Certificate::default()).await;
    assert_eq!(fault.kind, FaultKind::Disconnected, "{fault}");
    assert!(report.token_asked && knows_the_token(&read));
}

#[tokio::test]
async fn no_tls_no_token() {
    let (fault, report, _) = login(Script::AnswerTlsWith(b"N"), Certificate::default()).await;
    assert_eq!((fault.phase, fault.kind), (Phase::Tls, FaultKind::TlsNotOffered));
    assert!(report.phases.tls.is_some() && report.phases.login.is_none());

    let (fault, _, _) = login(Script::AnswerTlsWith(b"E"), Certificate::default()).await;
    assert_eq!((fault.phase, fault.kind), (Phase::Tls, FaultKind::Protocol));

    let (fault, _, _) = login(Script::Close, Certificate::default()).await;
    assert_eq!((fault.phase, fault.kind), (Phase::Tls, FaultKind::Disconnected));

    // Bytes smuggled in behind the agreement are taken for TLS, which they are not.
    let smuggled = b"SR\x00\x00\x00\x08\x00\x00\x00\x03";
    let (fault, _, _) = login(Script::AnswerTlsWith(smuggled), Certificate::default()).await;
    assert_eq!((fault.phase, fault.kind), (Phase::Tls, FaultKind::TlsFailed), "{fault}");

    let (fault, _, _) = login(Script::NoHandshake, Certificate::default()).await;
    assert_eq!((fault.phase, fault.kind), (Phase::Tls, FaultKind::TlsFailed), "{fault}");
}

#[tokio::test]
async fn an_expired_certificate_is_named_as_such() {
    let (fault, report, read) = login(Script::Silence, Certificate { expired: true }).await;
    assert_eq!((fault.phase, fault.kind), (Phase::Tls, FaultKind::CertificateInvalid));
    assert!(fault.message.contains("expired") && fault.message.contains("days ago"), "{fault}");
    assert!(report.certificate.is_some() && read.is_empty());
}

#[tokio::test]
async fn a_login_that_is_not_answered_times_out() {
    let (fault, report, _) = login(Script::Silence, Certificate::default()).await;
    assert_eq!((fault.phase, fault.kind), (Phase::Login, FaultKind::TimedOut));
    assert_eq!(fault.evidence(), Evidence::Silent);
    assert!(report.phases.login.is_some_and(|took| took.as_millis() >= 500));
}

#[tokio::test]
async fn invalid_data_inside_tls_is_a_protocol_fault() {
    let (fault, _, read) = login(Script::Say(b"HTTP/1.1 200 OK\r\n\r\n"), Certificate::default()).await;
    assert_eq!(fault.phase, Phase::Login);
    assert!(matches!(fault.kind, FaultKind::Protocol | FaultKind::Disconnected), "{fault}");
    assert!(!knows_the_token(&read));
}
