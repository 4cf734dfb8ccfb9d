//! Logins to servers that are ill, wrong or hostile: none of them reads a byte of the
//! token in the clear, and only one that asks for it as RDS does reads it at all.

use agent_core::{Evidence, Fault, FaultKind, Phase};

use super::scripted::{
    CAPABILITIES, Certificate, Script, TLS, TOKEN, Then, error, greeting, login, ok, packet, refusal, rows,
    switch,
};

const CLEAR: &str = "mysql_clear_password";

/// What of the protocol was in the clear: the request for TLS, and nothing of the login.
fn only_the_request_for_tls(wire: &[u8]) {
    assert!(wire.len() >= 36 && wire[..4] == [32, 0, 0, 1], "{wire:?}");
    let text = String::from_utf8_lossy(wire);
    assert!(!text.contains("lb_agent") && !text.contains("orders"), "the login is in the clear: {text}");
}

fn is(fault: &Fault, phase: Phase, kind: FaultKind, words: &[&str]) {
    assert_eq!((fault.phase, fault.kind), (phase, kind), "{fault}");
    for word in words {
        assert!(fault.message.contains(word), "{word:?} is missing in: {fault}");
    }
}

#[tokio::test]
async fn a_login_follows_the_protocol_of_rds() {
    let settings_and_who = || {
        let who = [&["aurora_version", "3.08.0"][..], &["version_comment", "Source distribution"]];
        [ok(1, true), rows(2, &["Variable_name", "Value"], &who)].concat()
    };
    // A token as long as those with a session token, and switches of any length.
    let long = format!("{}{TOKEN}", "a".repeat(3_500));
    for (token, data) in [(TOKEN, 0), (TOKEN, 21), (&long, 21), (&long, 40_000)] {
        let script = Script::answers([switch(3, CLEAR, &vec![7; data]), ok(5, false), settings_and_who()]);
        let (outcome, report, seen) = login(script, token).await;
        outcome.unwrap();
        assert!(report.token_asked);
        assert_eq!(report.server_version.as_deref(), Some("8.0.39 (Aurora 3.08.0)"));
        assert!(report.tls.is_some() && report.phases.login.is_some());

        only_the_request_for_tls(&seen.wire);
        assert_eq!(seen.tokens(token), 1);
        // The packet after the switch is the token and its end, and nothing else.
        let answer = packet(4, &[token.as_bytes(), &[0]].concat());
        assert!(seen.inside.windows(answer.len()).any(|window| window == answer));
        // The last word is a goodbye.
        assert!(seen.inside.ends_with(&packet(0, &[1])), "no goodbye");
    }
}

#[tokio::test]
async fn only_a_clear_password_is_ever_answered() {
    for plugin in
        ["caching_sha2_password", "mysql_native_password", "client_ed25519", "dialog", "sha256_password", ""]
    {
        // It gets an answer without content, so that the login comes to its end and counts as refused.
        let denied = error(5, 1045, "28000", "Access denied");
        let (fault, report, seen) =
            refusal(Script::answers([switch(3, plugin, b"saltsaltsaltsaltsalt\0"), denied])).await;
        is(&fault, Phase::Login, FaultKind::LoginRefused, &[plugin, "was sent"]);
        assert_eq!(fault.evidence(), Evidence::AuthIll);
        assert!(!report.token_asked);
        assert_eq!(seen.tokens(TOKEN), 0);
        let content = vec![0; if plugin == "client_ed25519" { 64 } else { 0 }];
        assert!(seen.inside.ends_with(&[b"rds-lb-agent", &packet(4, &content)[..]].concat()), "{plugin}");
    }

    // From before plugins had names, and without a name at all.
    for (question, word) in [(&[0xfe][..], "mysql_old_password"), (&[1, 4], "without requesting")] {
        let (fault, _, seen) = refusal(Script::answers([packet(3, question)])).await;
        is(&fault, Phase::Login, FaultKind::LoginRefused, &[word, "was sent"]);
        assert_eq!(seen.tokens(TOKEN), 0);
    }
}

#[tokio::test]
async fn a_login_without_a_password_is_closed_again() {
    let (fault, report, seen) =
        refusal(Script::answers([switch(3, "mysql_native_password", b"salt"), ok(5, false)])).await;
    is(&fault, Phase::Login, FaultKind::LoginRefused, &["mysql_native_password"]);
    assert!(!report.token_asked);
    assert!(seen.inside.ends_with(&packet(0, &[1])), "no goodbye");
}

#[tokio::test]
async fn the_token_is_sent_once() {
    let again = [switch(5, CLEAR, b""), switch(5, "dialog", b"\x04Password: "), packet(5, b"\x01more?")];
    for question in again {
        let (fault, report, seen) =
            refusal(Script::answers([switch(3, CLEAR, b""), question, ok(7, false)])).await;
        is(&fault, Phase::Login, FaultKind::LoginRefused, &["requested more data"]);
        assert!(report.token_asked);
        assert_eq!(seen.tokens(TOKEN), 1);
    }
}

#[tokio::test]
async fn no_tls_no_token() {
    // It has no TLS: nothing at all is answered.
    let script = Script {
        first: packet(0, &greeting(CAPABILITIES & !TLS)),
        then: Then::InTheClear(Vec::new()),
        certificate: Certificate::default(),
    };
    let (fault, report, seen) = refusal(script).await;
    is(&fault, Phase::Tls, FaultKind::TlsNotOffered, &["no token was sent"]);
    assert!(report.phases.tls.is_some() && report.phases.login.is_none());
    assert_eq!(report.server_version.as_deref(), Some("8.0.39"));
    assert!(seen.wire.is_empty());

    // It says it has TLS, and goes on in the clear.
    let asks = switch(2, CLEAR, b"");
    for answer in [asks.clone(), ok(2, false), error(2, 1045, "28000", "no"), b"HTTP/1.1 400\r\n".to_vec()] {
        let (fault, report, seen) = refusal(Script::greets_and(Then::InTheClear(answer))).await;
        is(&fault, Phase::Tls, FaultKind::TlsFailed, &[]);
        assert!(!report.token_asked && report.tls.is_none());
        only_the_request_for_tls(&seen.wire);
        assert_eq!(seen.tokens(TOKEN), 0);
    }

    // An attacker adds a request after the greeting, to be taken for one inside TLS.
    let mut script = Script::answers([]);
    script.first.extend_from_slice(&asks);
    let (fault, report, seen) = refusal(script).await;
    assert_eq!(fault.phase, Phase::Tls, "{fault}");
    assert!(matches!(fault.kind, FaultKind::Protocol | FaultKind::TlsFailed), "{fault}");
    assert!(!report.token_asked);
    assert_eq!(seen.tokens(TOKEN), 0);

    // It closes.
    let (fault, _, _) = refusal(Script::greets_and(Then::InTheClear(Vec::new()))).await;
    is(&fault, Phase::Tls, FaultKind::Disconnected, &[]);
}

#[tokio::test]
async fn a_server_that_does_not_prove_its_name_gets_no_token() {
    let usual = Certificate::default();
    let cases = [
        (Certificate { unknown_authority: true, ..usual }, "another one) is not signed by any of"),
        (Certificate { other_name: true, ..usual }, "check the endpoint"),
        (Certificate { expired: true, ..usual }, "expired"),
    ];
    for (certificate, words) in cases {
        let script = Script { certificate, ..Script::answers([switch(3, CLEAR, b""), ok(5, false)]) };
        let (fault, report, seen) = refusal(script).await;
        is(&fault, Phase::Tls, FaultKind::CertificateInvalid, &[words]);
        assert_eq!(fault.evidence(), Evidence::Nothing);
        assert!(report.certificate.is_some() && report.tls.is_none() && !report.token_asked);
        only_the_request_for_tls(&seen.wire);
        assert_eq!(seen.tokens(TOKEN), 0);
        assert!(seen.inside.is_empty());
    }
}

#[tokio::test]
async fn an_error_instead_of_a_greeting_is_reported() {
    let cases = [
        (1129, FaultKind::HostBlocked, Evidence::Alive, "host_cache"),
        (1130, FaultKind::PermissionDenied, Evidence::Alive, "matches this address"),
        (1040, FaultKind::TooManyConnections, Evidence::Alive, "max_connections"),
        (1053, FaultKind::StartingUp, Evidence::Down, "in its words"),
    ];
    for (code, kind, evidence, word) in cases {
        for state in ["", "08S01"] {
            let first = error(0, code, state, "in its words");
            let script =
                Script { first, then: Then::InTheClear(Vec::new()), certificate: Certificate::default() };
            let (fault, _, seen) = refusal(script).await;
            is(&fault, Phase::Login, kind, &[word, "in its words"]);
            assert_eq!((fault.code, fault.message.contains('#')), (Some(code.to_string()), false));
            assert_eq!(Fault::new(fault.phase, fault.kind, "").evidence(), evidence);
            assert!(seen.wire.is_empty());
        }
    }
}

#[tokio::test]
async fn a_server_that_starts_up_is_down() {
    for (code, refused_at_once) in [(1053, true), (1053, false), (3032, false), (1077, true), (1079, true)] {
        let said = |number| error(number, code, "08S01", "in its words");
        let script = if refused_at_once {
            let first = said(0);
            Script { first, then: Then::InTheClear(Vec::new()), certificate: Certificate::default() }
        } else {
            Script::answers([said(3)])
        };
        let (fault, report, seen) = refusal(script).await;
        is(&fault, Phase::Login, FaultKind::StartingUp, &["in its words"]);
        assert_eq!((fault.code.as_deref(), fault.evidence()), (Some(&*code.to_string()), Evidence::Down));
        assert!(!report.token_asked);
        assert_eq!(seen.tokens(TOKEN), 0);
    }
}

#[tokio::test]
async fn each_refused_login_has_its_own_reason() {
    let cases = [
        (1045, FaultKind::LoginRefused, "rds-db:connect"),
        (1698, FaultKind::LoginRefused, "AWSAuthenticationPlugin"),
        (1226, FaultKind::PermissionDenied, "MAX_USER_CONNECTIONS"),
        (1203, FaultKind::PermissionDenied, "max_user_connections"),
        (1049, FaultKind::DatabaseError, "another one"),
        (1044, FaultKind::PermissionDenied, "grant"),
        (3118, FaultKind::LoginRefused, "ACCOUNT UNLOCK"),
        (3955, FaultKind::LoginRefused, "FAILED_LOGIN_ATTEMPTS"),
    ];
    for (code, kind, word) in cases {
        let refused = error(5, code, "28000", "in its words");
        let (fault, report, seen) = refusal(Script::answers([switch(3, CLEAR, b""), refused])).await;
        is(&fault, Phase::Login, kind, &[word, "in its words"]);
        assert_eq!(fault.code, Some(code.to_string()));
        assert!(report.token_asked);
        assert_eq!(seen.tokens(TOKEN), 1);
    }

    // Without having asked, the token is not to blame.
    let (fault, report, seen) = refusal(Script::answers([error(3, 1045, "28000", "Access denied")])).await;
    is(&fault, Phase::Login, FaultKind::LoginRefused, &["did not request a token"]);
    assert!(!report.token_asked);
    assert_eq!(seen.tokens(TOKEN), 0);
    let (fault, _, _) = refusal(Script::answers([error(3, 1524, "HY000", "Plugin is not loaded")])).await;
    is(&fault, Phase::Login, FaultKind::LoginRefused, &["Plugin is not loaded"]);
}

#[tokio::test]
async fn invalid_packets_are_protocol_faults() {
    let well = packet(0, &greeting(CAPABILITIES));
    let greetings = [
        (b"SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n".to_vec(), "out of its order"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec(), "out of its order"),
        // Larger than any greeting; out of order; cut short inside; longer than it should be.
        (packet(0, &vec![10; 70_000]), "larger than any expected"),
        (packet(1, &greeting(CAPABILITIES)), "out of its order"),
        (packet(0, &greeting(CAPABILITIES)[..40]), "cut short"),
        (packet(0, &[&greeting(CAPABILITIES)[..], b"x"].concat()), "longer than it should be"),
        (packet(0, &[]), "cut short"),
        (packet(0, b"\x09older"), "protocol 10"),
        (
            packet(0, &greeting(TLS | 1 << 9 | 1 << 15 | 1 << 19)[..]),
            "does not support authentication plugins",
        ),
    ];
    for (first, word) in greetings {
        let script =
            Script { first, then: Then::InTheClear(Vec::new()), certificate: Certificate::default() };
        let (fault, _, seen) = refusal(script).await;
        is(&fault, Phase::Tls, FaultKind::Protocol, &[word]);
        assert_eq!(fault.evidence(), Evidence::Nothing);
        assert!(seen.wire.is_empty());
    }

    // A greeting that stops in the middle of its packet is a lost connection.
    let script = Script {
        first: well[..well.len() - 1].to_vec(),
        then: Then::Silence,
        certificate: Certificate::default(),
    };
    let (fault, _, _) = refusal(script).await;
    is(&fault, Phase::Tls, FaultKind::TimedOut, &[]);

    let answers = [
        packet(3, &[]),
        packet(3, &[0x55; 20]),
        packet(3, b"\xfemysql_clear_password"),
        packet(4, &[&[0xfe], CLEAR.as_bytes(), &[0]].concat()),
        packet(3, &vec![0xfe; 70_000]),
        packet(3, &[0, 0, 0]),
        packet(3, b"\xff\x15\x04#2800"),
        b"HTTP/1.1 200 OK\r\n\r\n".to_vec(),
    ];
    for answer in answers {
        let (fault, report, seen) = refusal(Script::answers([answer])).await;
        is(&fault, Phase::Login, FaultKind::Protocol, &[]);
        assert!(!report.token_asked);
        assert_eq!(seen.tokens(TOKEN), 0);
    }

    // After the login: a request for a file of the agent's host.
    let file = packet(1, b"\xfb/etc/passwd");
    let (fault, _, _) = refusal(Script::answers([switch(3, CLEAR, b""), ok(5, false), file])).await;
    is(&fault, Phase::Login, FaultKind::Protocol, &["a local file of the client"]);
}

#[tokio::test]
async fn a_login_that_is_not_answered_times_out() {
    let script = Script { first: Vec::new(), then: Then::Silence, certificate: Certificate::default() };
    let (fault, report, seen) = refusal(script).await;
    is(&fault, Phase::Tls, FaultKind::TimedOut, &[]);
    assert!(report.phases.tls.is_some_and(|took| took.as_millis() >= 1_000) && seen.wire.is_empty());

    let (fault, report, seen) = refusal(Script::greets_and(Then::Silence)).await;
    is(&fault, Phase::Login, FaultKind::TimedOut, &[]);
    assert_eq!(fault.evidence(), Evidence::Silent);
    assert!(report.phases.login.is_some_and(|took| took.as_millis() >= 1_000));
    assert_eq!(seen.tokens(TOKEN), 0);
    // What agents are recognised by went out with the user.
    let text = String::from_utf8_lossy(&seen.inside);
    assert!(text.contains("lb_agent") && text.contains("program_name\x0crds-lb-agent"), "{text}");
}

/// Whatever comes in the clear, nothing of the token goes out there; whatever comes
/// inside TLS, it goes out once at most.
#[tokio::test]
async fn no_rubbish_gets_the_token() {
    let mut random = fastrand::Rng::with_seed(3306);
    let mut bytes = move |most: usize| -> Vec<u8> {
        let length = random.usize(0..most);
        std::iter::repeat_with(|| random.u8(..)).take(length).collect()
    };
    for turn in 0..60_u8 {
        let mut damaged = greeting(CAPABILITIES);
        let at = usize::from(turn) % damaged.len();
        damaged[at] = damaged[at].wrapping_add(turn | 1);
        let first = match turn % 3 {
            0 => packet(0, &damaged),
            1 => packet(0, &bytes(200)),
            _ => packet(0, &greeting(CAPABILITIES)),
        };
        let then = match turn % 2 {
            0 => Then::InTheClear(bytes(200)),
            _ => Then::Tls(vec![packet(3, &bytes(60)), packet(5, &bytes(60))]),
        };
        let (fault, report, seen) =
            refusal(Script { first, then, certificate: Certificate::default() }).await;
        assert!(fault.phase <= Phase::Login, "{fault}");
        assert!(seen.tokens(TOKEN) <= usize::from(report.token_asked), "{fault}");
    }
}
