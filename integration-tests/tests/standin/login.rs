//! Who gets in, over a real PostgreSQL login.

use std::{path::Path, time::Duration};

use integration_tests::{
    mysql::{Secret, Tls},
    standin::{
        Engine, StandIn,
        credential::Credential,
        token::{Purpose, Refusal, sign},
    },
    tls::VerifiedTls,
};
use jiff::Timestamp;
use tokio_postgres::{NoTls, config::SslMode};

use super::{Refused, client::log_in_with, log_in, on_each_engine, started};

on_each_engine!(
    a_genuine_token_logs_in_and_each_wrong_one_is_refused_for_its_reason,
    a_token_that_is_far_too_long_is_refused_by_the_server_itself,
    genuine_tokens_can_be_refused_temporarily,
    only_users_with_a_password_log_in_with_one,
    logins_without_tls_or_to_another_server_name_fail,
    the_agents_users_have_the_documented_privileges,
);

/// Whatever is wrong with a token, the client reads this.
fn is_refusal_of_a_token(engine: Engine, refused: &Refused) -> bool {
    let Refused { code, message } = refused;
    match engine {
        Engine::Postgresql => {
            code.as_deref() == Some("28000") && message == "PAM authentication failed for user \"app\""
        }
        // Though a token was sent.
        Engine::Mariadb => {
            code.as_deref() == Some("1045")
                && message == "Access denied for user 'app'@'localhost' (using password: NO)"
        }
    }
}

/// Logs in as `app` with this password; gives what the stand-in made of it.
async fn verdict(standin: &StandIn, token: &str) -> Result<(), Refusal> {
    let engine = standin.engine();
    let outcome = log_in_with(standin, "a", "app", Secret::Token(token.to_owned())).await;
    let attempt = standin.journal().attempts().pop().unwrap();
    assert_eq!((attempt.server.as_str(), attempt.user.as_str()), ("a", "app"));
    assert_eq!(attempt.from, if engine == Engine::Postgresql { "127.0.0.1" } else { "" });
    match outcome {
        Ok(mut client) => {
            let who = match engine {
                Engine::Postgresql => ("SELECT session_user", "app"),
                Engine::Mariadb => ("SELECT current_user()", "app@%"),
            };
            assert_eq!(client.value(who.0).await.unwrap(), who.1);
            assert_eq!(attempt.verdict, Ok(()));
        }
        Err(refused) => {
            assert!(is_refusal_of_a_token(engine, &refused), "{refused:?}");
            assert!(attempt.verdict.is_err(), "the server refused what the stand-in accepted");
        }
    }
    attempt.verdict
}

async fn a_genuine_token_logs_in_and_each_wrong_one_is_refused_for_its_reason(engine: Engine) {
    let standin = started(engine, 0).await;
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

async fn a_token_that_is_far_too_long_is_refused_by_the_server_itself(engine: Engine) {
    let standin = started(engine, 0).await;
    let far_too_long = Secret::Token("x".repeat(8193));
    let refused = log_in_with(&standin, "a", "app", far_too_long).await.map(drop).unwrap_err();
    assert!(is_refusal_of_a_token(engine, &refused), "{refused:?}");
    assert_eq!(standin.journal().attempts(), [], "the gate was not asked");
}

async fn genuine_tokens_can_be_refused_temporarily(engine: Engine) {
    let standin = started(engine, 0).await;
    let logs_in = async |user: &str| log_in(&standin, "a", user).await.is_ok();
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

async fn only_users_with_a_password_log_in_with_one(engine: Engine) {
    let standin = started(engine, 0).await;
    let (not_the_password, closed) = match engine {
        Engine::Postgresql => ("28P01", "28000"),
        Engine::Mariadb => ("1045", "1045"),
    };
    let refused = log_in(&standin, "a", "legacy").await.map(drop).unwrap_err();
    assert_eq!(refused.code.as_deref(), Some(not_the_password), "a token is no password");
    let password = || Secret::Password(standin.legacy_password().to_owned());
    let mut legacy = log_in_with(&standin, "a", "legacy", password()).await.unwrap();
    assert_eq!(legacy.value("SELECT count(*) FROM stock").await.unwrap(), "1000");

    for user in ["rdsadmin", "replicator"] {
        let refused = log_in_with(&standin, "a", user, password()).await.map(drop).unwrap_err();
        assert_eq!(refused.code.as_deref(), Some(closed), "{user}: {refused:?}");
    }
    // Who does not exist, or may not log in, gets nothing for a token that is genuine.
    for user in ["root", "rds_iam"] {
        let refused = log_in(&standin, "a", user).await.map(drop).unwrap_err();
        assert_eq!(refused.code.as_deref(), Some(closed), "{user}: {refused:?}");
    }
}

async fn logins_without_tls_or_to_another_server_name_fail(engine: Engine) {
    let (standin, other) = (started(engine, 0).await, started(engine, 0).await);
    let connect = standin.server("a").unwrap().connect();
    match engine {
        Engine::Postgresql => {
            let mut login = standin.login("a", "app").unwrap();
            login.ssl_mode(SslMode::Disable);
            let error = login.connect(NoTls).await.map(drop).unwrap_err();
            assert!(error.as_db_error().unwrap().message().ends_with("no encryption"), "{error:?}");

            let login = standin.login("a", "app").unwrap();
            let error = login.connect(other.tls().unwrap()).await.map(drop).unwrap_err();
            assert!(format!("{error:?}").contains("UnknownIssuer"), "{error:?}");

            // The same address under another name, as behind a proxy with a name of its own.
            let mut misnamed = tokio_postgres::Config::new();
            misnamed.host("proxy.example.com").hostaddr(connect.ip()).port(connect.port()).user("app");
            misnamed.ssl_mode(SslMode::Require);
            let error = misnamed.connect(standin.tls().unwrap()).await.map(drop).unwrap_err();
            assert!(format!("{error:?}").contains("NotValidForName"), "{error:?}");
        }
        Engine::Mariadb => {
            // It asks for the token all the same; who answers has leaked it.
            let mut plain = standin.mysql_login("a", "app").unwrap();
            plain.tls = None;
            let error = plain.connect().await.unwrap_err();
            assert!(error.to_string().contains("asks for the password in clear text"), "{error}");
            // A password proves nothing without TLS either.
            "legacy".clone_into(&mut plain.user);
            plain.secret = Secret::Password(standin.legacy_password().to_owned());
            assert_eq!(plain.connect().await.unwrap_err().code(), Some(1045));

            let mut login = standin.mysql_login("a", "app").unwrap();
            let name = login.tls.as_ref().unwrap().name.clone();
            login.tls = Some(Tls { config: other.tls().unwrap().config(), name });
            let error = login.connect().await.unwrap_err();
            assert!(format!("{error:?}").contains("UnknownIssuer"), "{error:?}");

            let mut misnamed = standin.mysql_login("a", "app").unwrap();
            "proxy.example.com".clone_into(&mut misnamed.tls.as_mut().unwrap().name);
            let error = misnamed.connect().await.unwrap_err();
            assert!(format!("{error:?}").contains("NotValidForName"), "{error:?}");
        }
    }
    assert_eq!(standin.journal().attempts(), [], "the gate was not asked");
    assert!(VerifiedTls::from_ca_file(Path::new("/nonexistent")).is_err());
}

async fn the_agents_users_have_the_documented_privileges(engine: Engine) {
    let standin = started(engine, 0).await;
    match engine {
        Engine::Postgresql => agents_of_postgresql(&standin).await,
        Engine::Mariadb => agents_of_mariadb(&standin).await,
    }
}

async fn agents_of_postgresql(standin: &StandIn) {
    let may = async |user: &str, sql: &str| {
        log_in(standin, "a", user).await.unwrap().value(sql).await.unwrap() == "t"
    };
    for user in ["lb_agent", "lb_agent_plain"] {
        assert!(may(user, "SELECT pg_has_role('pg_monitor', 'MEMBER')").await, "{user}");
    }
    assert!(may("lb_agent", "SELECT pg_has_role('pg_signal_backend', 'MEMBER')").await);
    assert!(!may("lb_agent_plain", "SELECT pg_has_role('pg_signal_backend', 'MEMBER')").await);
    // There is no session 0, so nothing is closed.
    let retire = "SELECT outcome = 'gone' FROM rds_lb_agent.retire(0, now(), '127.0.0.1', 1, 'app', 0)";
    assert!(may("lb_agent_plain", retire).await);
    let refused = log_in(standin, "a", "app").await.unwrap().value(retire).await.unwrap_err();
    assert_eq!(refused.code.as_deref(), Some("42501"), "{refused:?}");
}

async fn agents_of_mariadb(standin: &StandIn) {
    const ACCESS_DENIED: &str = "1227";
    const READ_ONLY: &str = "1290";
    let mut app = log_in(standin, "a", "app").await.unwrap();
    let number = app.value("SELECT connection_id()").await.unwrap();
    let sees = "SELECT count(*) FROM information_schema.processlist WHERE user = 'app'";
    let knows = "SELECT plugin FROM mysql.user WHERE User = 'app'";
    for user in ["lb_agent", "lb_agent_plain"] {
        let mut agent = log_in(standin, "a", user).await.unwrap();
        assert_eq!(agent.value(sees).await.unwrap(), "1", "{user}");
        assert_eq!(agent.value(knows).await.unwrap(), "pam", "{user}");
        agent.value("SELECT count(*) FROM performance_schema.events_transactions_current").await.unwrap();
        agent.value("SHOW ALL SLAVES STATUS").await.unwrap();
        let refused = agent.value("INSERT INTO orders.stock VALUES (0, 0)").await.unwrap_err();
        assert_eq!(refused.code.as_deref(), Some("1142"), "{refused:?}");
        let refused = agent.value("SET GLOBAL read_only = ON").await.unwrap_err();
        assert_eq!(refused.code.as_deref(), Some(ACCESS_DENIED), "{refused:?}");
    }
    let kill = format!("KILL CONNECTION {number}");
    let refused = log_in(standin, "a", "lb_agent_plain").await.unwrap().value(&kill).await.unwrap_err();
    assert_eq!(refused.code.as_deref(), Some("1095"), "{refused:?}");
    // There is no session 0, so nothing is closed.
    let retire = "CALL rds_lb_agent.retire(0, '127.0.0.1', 1, 'app', 0, TRUE, FALSE)";
    let mut plain = log_in(standin, "a", "lb_agent_plain").await.unwrap();
    assert_eq!(plain.value(retire).await.unwrap(), "gone");
    let refused = app.value(retire).await.unwrap_err();
    assert_eq!(refused.code.as_deref(), Some("1370"), "{refused:?}");
    log_in(standin, "a", "lb_agent").await.unwrap().value(&kill).await.unwrap();
    app.value("SELECT 1").await.unwrap_err();

    // Only the superuser writes to a read-only server.
    standin.execute_sql("a", "SET GLOBAL read_only = ON").await.unwrap();
    let mut app = log_in(standin, "a", "app").await.unwrap();
    let refused = app.value("UPDATE stock SET amount = 0").await.unwrap_err();
    assert_eq!(refused.code.as_deref(), Some(READ_ONLY), "{refused:?}");
}
