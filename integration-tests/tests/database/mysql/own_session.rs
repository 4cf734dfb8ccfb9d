//! Settings, limits and hooks of the agent's own session never decide about other users, and what
//! is lost in it is reported.
//!
//! `init_connect` does not run for `lb_agent`, which may kill: these tests log in as `lb_agent_plain`.

use agent_core::{Evidence, FaultKind, Phase};
use agent_database::{Scope, Session as _};

use super::{
    clients::eventually,
    lab::Lab,
    scripted::{Script, TOKEN, and_more, begin, error, ok, rows, switch},
};

#[tokio::test]
async fn limits_of_results_do_not_shorten_what_the_agent_reads() {
    for limit in ["SET GLOBAL sql_select_limit = 0", "SET GLOBAL init_connect = 'SET sql_select_limit = 1'"] {
        let lab = Lab::start(1).await;
        lab.sql(limit).await;
        lab.standin.execute_sql("b", limit).await.unwrap();
        let clients = [lab.client("app").await, lab.client("app").await, lab.client("app2").await];
        let mut agent = lab.session("a", "lb_agent_plain").await;
        let rows = agent.activity(Scope::All).await.unwrap();
        for client in &clients {
            let row = rows.iter().find(|row| row.key.pid == u64::from(client.id()));
            assert!(row.is_some_and(|row| row.iam_user), "{limit}: {rows:?}");
        }
        assert!(agent.role().await.unwrap().claims_writer(), "{limit}");
        let facts = lab.session("b", "lb_agent_plain").await.role().await.unwrap();
        assert!(facts.in_recovery && facts.follows_source && facts.lag.is_some(), "{limit}: {facts:?}");
        lab.shutdown().await;
    }
}

#[tokio::test]
async fn only_a_read_only_default_of_the_whole_server_makes_it_read_only() {
    let lab = Lab::start(0).await;
    lab.sql("SET GLOBAL init_connect = 'SET SESSION TRANSACTION READ ONLY'").await;
    assert!(lab.session("a", "lb_agent_plain").await.role().await.unwrap().claims_writer());
    let name = if lab.is_mariadb().await { "tx_read_only" } else { "transaction_read_only" };
    lab.sql(&format!("SET GLOBAL {name} = ON")).await;
    let facts = lab.session("a", "lb_agent_plain").await.role().await.unwrap();
    assert!(facts.read_only && !facts.in_recovery && !facts.claims_writer(), "{facts:?}");
    lab.shutdown().await;
}

#[tokio::test]
async fn a_failing_login_hook_proves_that_the_server_is_alive() {
    let lab = Lab::start(0).await;
    lab.sql("SET GLOBAL init_connect = 'INSERT INTO orders.nothing VALUES (1)'").await;
    let fault = lab.try_login("a", "lb_agent_plain").await.0.err().unwrap();
    assert_eq!(fault.evidence(), Evidence::Alive, "{fault}");
    assert!(fault.message.contains("init_connect"), "{fault}");
    lab.shutdown().await;
}

#[tokio::test]
async fn an_idle_session_of_the_agent_outlives_the_servers_wait_timeout() {
    let lab = Lab::start(0).await;
    lab.sql("SET GLOBAL wait_timeout = 1").await;
    let mut agent = lab.session("a", "lb_agent").await;
    // A client that connected later is disconnected first.
    let client = lab.client("app").await.id();
    let count = format!("SELECT COUNT(*) FROM information_schema.PROCESSLIST WHERE ID = {client}");
    eventually("the client's timeout", || async {
        let count = lab.standin.value("a", &count).await.unwrap();
        if count == "0" { Ok(()) } else { Err(count) }
    })
    .await;
    agent.role().await.unwrap();
    lab.shutdown().await;
}

/// A session to a server that gives these answers to the role query, one after another.
async fn answers_of_role<const N: usize>(
    answers: [Vec<u8>; N],
) -> (agent_database::mysql::MySqlSession, tokio::task::JoinHandle<super::scripted::Seen>) {
    let who = rows(2, &["Variable_name", "Value"], &[&["version_comment", "Source distribution"]]);
    let set_up = [ok(1, true), who].concat();
    let login = [switch(3, "mysql_clear_password", b""), ok(5, false), set_up];
    let (session, _, server) = begin(
        Script::greets_and(super::scripted::Then::Tls(login.into_iter().chain(answers).collect())),
        TOKEN,
    )
    .await;
    (session.unwrap(), server)
}

/// The first statement's result: `read_only`, and two agents.
fn own(read_only: &str) -> Vec<u8> {
    rows(1, &["innodb_read_only", "read_only", "agents"], &[&["0", read_only, "2"]])
}

#[tokio::test]
async fn a_lost_replication_status_never_changes_the_role() {
    let source = || rows(8, &["Seconds_Behind_Master"], &[&["3"]]);
    let lost = || error(8, 1969, "70100", "Query execution was interrupted (max_statement_time exceeded)");
    for read_only in ["0", "1"] {
        let seen = [and_more(own(read_only)), source()].concat();
        let unseen = [and_more(own(read_only)), lost()].concat();
        let (mut session, _server) = answers_of_role([seen, unseen]).await;
        let (before, after) = (session.role().await.unwrap(), session.role().await.unwrap());
        assert!(before.follows_source && after.follows_source);
        assert_eq!(before.claims_writer(), read_only == "0");
        assert_eq!(after, agent_core::health::RoleFacts { lag: None, ..before });
        assert!(session.fault().is_none());
    }
}

#[tokio::test]
async fn an_incomplete_answer_is_no_role() {
    let nothing = rows(1, &["innodb_read_only", "read_only", "agents"], &[]);
    let no_status = || rows(7, &["Seconds_Behind_Master"], &[]);
    let refused = error(1, 1969, "70100", "Query execution was interrupted (max_statement_time exceeded)");
    let (mut session, _server) = answers_of_role([[and_more(nothing), no_status()].concat(), refused]).await;
    let fault = session.role().await.unwrap_err();
    assert_eq!((fault.phase, fault.kind), (Phase::Query, FaultKind::Protocol), "{fault}");
    // An error names what was read, and its number.
    let fault = session.role().await.unwrap_err();
    assert_eq!(
        (fault.phase, fault.kind, fault.code.as_deref()),
        (Phase::Query, FaultKind::TimedOut, Some("1969"))
    );
    assert!(fault.message.starts_with("reading the role: "), "{fault}");
}

#[tokio::test]
async fn a_writable_server_that_follows_a_source_is_reported() {
    let lab = Lab::start(1).await;
    let mut replica = lab.session("b", "lb_agent").await;
    assert!(!lab.session("a", "lb_agent").await.role().await.unwrap().follows_source);
    lab.standin.execute_sql("b", "SET GLOBAL read_only = OFF").await.unwrap();
    let facts = replica.role().await.unwrap();
    assert!(facts.claims_writer() && facts.follows_source, "{facts:?}");
    lab.shutdown().await;
}
