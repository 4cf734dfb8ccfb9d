//! Who gets in, over a real PostgreSQL login.

use std::{path::Path, time::Duration};

use integration_tests::{
    standin::{
        StandIn,
        credential::Credential,
        token::{Purpose, Refusal, sign},
    },
    tls::VerifiedTls,
};
use jiff::Timestamp;
use tokio_postgres::{NoTls, config::SslMode, error::SqlState};

use super::{connect, single_server};

/// Logs in as `app` with this password; gives what the stand-in made of it.
async fn verdict(standin: &StandIn, token: &str) -> Result<(), Refusal> {
    let mut login = standin.login("a", "app").unwrap();
    login.password(token);
    let outcome = connect(standin, &login).await;
    let attempt = standin.journal().attempts().pop().unwrap();
    assert_eq!((attempt.server.as_str(), attempt.user.as_str()), ("a", "app"));
    assert_eq!(attempt.from, "127.0.0.1");
    match outcome {
        Ok(client) => {
            let row = client.query_one("SELECT session_user::text", &[]).await.unwrap();
            assert_eq!(row.get::<_, &str>(0), "app");
            assert_eq!(attempt.verdict, Ok(()));
        }
        // Whatever is wrong, the client reads the same.
        Err(error) => {
            let said = error.as_db_error().unwrap_or_else(|| panic!("{error}"));
            assert_eq!(said.code(), &SqlState::INVALID_AUTHORIZATION_SPECIFICATION);
            assert_eq!(said.message(), "PAM authentication failed for user \"app\"");
            assert!(attempt.verdict.is_err(), "the server refused what the stand-in accepted");
        }
    }
    attempt.verdict
}

#[tokio::test]
async fn a_genuine_token_logs_in_and_each_wrong_one_is_refused_for_its_reason() {
    let standin = single_server().await;
    let server = standin.server("a").unwrap();
    let now = Timestamp::now();
    let issuer = standin.credentials().issuer();
    let good = issuer.current(now);
    let purpose = Purpose {
        host: server.endpoint(),
        port: server.connect().port(),
        region: standin.region(),
        user: "app",
    };
    let signed = |credential: &Credential, purpose: Purpose<'_>, at| sign(credential, &purpose, at);

    assert_eq!(verdict(&standin, &signed(&good, purpose, now)).await, Ok(()));
    for host in [standin.cluster_endpoint(), standin.reader_endpoint()] {
        assert_eq!(verdict(&standin, &signed(&good, Purpose { host, ..purpose }, now)).await, Ok(()));
    }
    let signed_long_ago = signed(&good, purpose, now - Duration::from_secs(890));
    assert_eq!(verdict(&standin, &signed_long_ago).await, Ok(()));

    let other_host = "orders-b.c1a2b3d4e5f6.eu-west-1.rds.amazonaws.com";
    let unknown = Credential { access_key: "ASIANOBODYHASTHISKEY".to_owned(), ..good.clone() };
    let other_secret = Credential { secret_key: "made up".to_owned(), ..good.clone() };
    let other_session = Credential { session_token: "made up".to_owned(), ..good.clone() };
    let expired = issuer.issue_apart(now - Duration::from_mins(30), Duration::from_mins(20));
    let revoked = issuer.issue_apart(now, Duration::from_hours(1));
    issuer.revoke(&revoked.access_key);
    let tampered = signed(&good, purpose, now).replace("X-Amz-Signature=", "X-Amz-Signature=0");
    let proxied = Purpose { port: purpose.port - 1, ..purpose };
    let wrong = [
        (signed(&good, purpose, now - Duration::from_secs(905)), Refusal::Expired),
        (signed(&good, purpose, now + Duration::from_mins(20)), Refusal::NotYetValid),
        (signed(&good, Purpose { user: "app2", ..purpose }, now), Refusal::User),
        (signed(&good, Purpose { host: other_host, ..purpose }, now), Refusal::Host),
        (signed(&good, proxied, now), Refusal::Port),
        (signed(&good, Purpose { region: "eu-west-3", ..purpose }, now), Refusal::Region),
        (signed(&unknown, purpose, now), Refusal::UnknownKey),
        (signed(&other_secret, purpose, now), Refusal::Signature),
        (signed(&other_session, purpose, now), Refusal::SessionToken),
        (tampered, Refusal::Signature),
        (signed(&revoked, purpose, now), Refusal::CredentialRevoked),
        (signed(&expired, purpose, now), Refusal::CredentialExpired),
        ("a password".to_owned(), Refusal::Malformed("no query")),
    ];
    for (token, reason) in wrong {
        assert_eq!(verdict(&standin, &token).await, Err(reason));
    }
    standin.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_token_that_is_far_too_long_is_refused_by_the_server_itself() {
    let standin = single_server().await;
    let mut login = standin.login("a", "app").unwrap();
    login.password("x".repeat(8193));
    let error = connect(&standin, &login).await.unwrap_err();
    assert_eq!(error.code(), Some(&SqlState::INVALID_AUTHORIZATION_SPECIFICATION));
    assert_eq!(standin.journal().attempts(), [], "nobody was asked");
}

#[tokio::test]
async fn genuine_tokens_are_refused_for_a_while() {
    let standin = single_server().await;
    let logs_in = async |user: &str| connect(&standin, &standin.login("a", user).unwrap()).await.is_ok();
    assert!(logs_in("app").await && logs_in("lb_agent").await);

    standin.refuse_tokens(None, Some("lb_agent")).unwrap();
    assert!(logs_in("app").await && !logs_in("lb_agent").await);
    assert_eq!(standin.journal().attempts().pop().unwrap().verdict, Err(Refusal::ForAWhile));

    standin.refuse_tokens(Some("a"), None).unwrap();
    assert!(!logs_in("app").await && !logs_in("lb_agent").await);

    standin.accept_tokens();
    assert!(logs_in("app").await && logs_in("lb_agent").await);
    assert!(standin.refuse_tokens(Some("z"), None).is_err(), "there is no such server");
}

#[tokio::test]
async fn a_password_works_for_who_has_one_and_for_nobody_else() {
    let standin = single_server().await;
    let mut login = standin.login("a", "legacy").unwrap();
    let token = connect(&standin, &login).await.unwrap_err();
    assert_eq!(token.code(), Some(&SqlState::INVALID_PASSWORD), "a token is no password");
    login.password(standin.legacy_password());
    connect(&standin, &login).await.unwrap().batch_execute("SELECT count(*) FROM stock").await.unwrap();

    for closed in ["rdsadmin", "replicator", "rds_iam"] {
        login.user(closed);
        let error = connect(&standin, &login).await.unwrap_err();
        assert_eq!(error.code(), Some(&SqlState::INVALID_AUTHORIZATION_SPECIFICATION), "{closed}");
    }
}

#[tokio::test]
async fn nobody_gets_in_without_tls_or_to_a_server_of_another_name() {
    let standin = single_server().await;
    let mut login = standin.login("a", "app").unwrap();
    login.ssl_mode(SslMode::Disable);
    let error = login.connect(NoTls).await.map(drop).unwrap_err();
    assert!(error.as_db_error().unwrap().message().ends_with("no encryption"), "{error:?}");

    let other = single_server().await;
    let login = standin.login("a", "app").unwrap();
    let error = login.connect(other.tls().unwrap()).await.map(drop).unwrap_err();
    assert!(format!("{error:?}").contains("UnknownIssuer"), "{error:?}");

    // The same address under another name, as behind a proxy with a name of its own.
    let connect = standin.server("a").unwrap().connect();
    let mut misnamed = tokio_postgres::Config::new();
    misnamed.host("proxy.example.com").hostaddr(connect.ip()).port(connect.port()).user("app");
    misnamed.ssl_mode(SslMode::Require);
    let error = misnamed.connect(standin.tls().unwrap()).await.map(drop).unwrap_err();
    assert!(format!("{error:?}").contains("NotValidForName"), "{error:?}");

    assert!(VerifiedTls::from_ca_file(Path::new("/nonexistent")).is_err());
}

#[tokio::test]
async fn the_agents_roles_can_what_they_should() {
    let standin = single_server().await;
    let may = async |user: &str, sql: &str| {
        let client = connect(&standin, &standin.login("a", user).unwrap()).await.unwrap();
        client.query_one(sql, &[]).await.unwrap().get::<_, bool>(0)
    };
    for user in ["lb_agent", "lb_agent_plain"] {
        assert!(may(user, "SELECT pg_has_role('pg_monitor', 'MEMBER')").await, "{user}");
    }
    assert!(may("lb_agent", "SELECT pg_has_role('pg_signal_backend', 'MEMBER')").await);
    assert!(!may("lb_agent_plain", "SELECT pg_has_role('pg_signal_backend', 'MEMBER')").await);
    // Session 0 is nobody's, so nothing is closed.
    let retire = "SELECT outcome = 'gone' FROM rds_lb_agent.retire(0, now(), '127.0.0.1', 1, 'app', 0)";
    assert!(may("lb_agent_plain", retire).await);
    let app = connect(&standin, &standin.login("a", "app").unwrap()).await.unwrap();
    let error = app.query_one(retire, &[]).await.unwrap_err();
    assert_eq!(error.code(), Some(&SqlState::INSUFFICIENT_PRIVILEGE));
}
