//! What an agent's user may do, as the server tells it.

use agent_database::{FunctionState, Method, Session as _, postgresql};

use super::lab::Lab;

#[tokio::test]
async fn rights_are_what_was_granted() {
    let lab = Lab::start(0).await;
    lab.sql(postgresql::UNINSTALL_SQL).await;
    lab.sql(postgresql::RETIRE_SQL).await;

    let mut agent = lab.session("a", "lb_agent").await;
    let rights = agent.rights().await.unwrap();
    assert!(rights.sees_all_activity && rights.may_signal && rights.iam_known && rights.iam_user);
    assert!(!rights.superuser);
    assert!((110_000..200_000).contains(&rights.version_number), "{rights:?}");
    assert!(!rights.version.is_empty());

    let mut app = lab.session("a", "app").await;
    let rights = app.rights().await.unwrap();
    assert!(!rights.sees_all_activity && !rights.may_signal, "{rights:?}");
    assert_eq!(rights.function, FunctionState::NotExecutable);
    assert_eq!(rights.method(), None);

    lab.sql("GRANT lb_agent_retire TO lb_agent_plain").await;
    let mut plain = lab.session("a", "lb_agent_plain").await;
    let rights = plain.rights().await.unwrap();
    assert!(rights.sees_all_activity && !rights.may_signal);
    assert_eq!((rights.function, rights.catch_function), (FunctionState::Ready, FunctionState::Missing));
    assert_eq!(rights.method(), Some(Method::Function));
    lab.sql(postgresql::CATCH_SQL).await;
    assert_eq!(plain.rights().await.unwrap().catch_function, FunctionState::Ready);

    // One word stops a fleet.
    lab.sql("REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA rds_lb_agent FROM lb_agent_retire").await;
    let rights = plain.rights().await.unwrap();
    assert_eq!(rights.function, FunctionState::NotExecutable);
    assert_eq!(rights.catch_function, FunctionState::NotExecutable);

    lab.sql("COMMENT ON FUNCTION rds_lb_agent.catch(int4, timestamptz, inet, int4, name) IS 'other'").await;
    assert_eq!(plain.rights().await.unwrap().catch_function, FunctionState::OtherVersion);

    lab.sql(postgresql::UNINSTALL_SQL).await;
    let rights = plain.rights().await.unwrap();
    assert_eq!((rights.function, rights.catch_function), (FunctionState::Missing, FunctionState::Missing));
    let left = "SELECT count(*) FROM pg_roles WHERE rolname LIKE 'lb_agent_retire%'";
    assert_eq!(lab.standin.value("a", left).await.unwrap(), "0");

    // On a server without IAM.
    lab.sql("REVOKE rds_iam FROM lb_agent").await;
    let rights = agent.rights().await.unwrap();
    assert!(rights.iam_known && !rights.iam_user);
    lab.sql("ALTER ROLE rds_iam RENAME TO something_else").await;
    assert!(!agent.rights().await.unwrap().iam_known);
    lab.shutdown().await;
}

#[tokio::test]
async fn the_function_is_installed_without_a_superuser_and_more_than_once() {
    let lab = Lab::start(0).await;
    lab.sql(postgresql::UNINSTALL_SQL).await;
    // As the master user of RDS: no superuser, may make roles, owns the database.
    lab.sql("CREATE ROLE master LOGIN CREATEROLE CREATEDB").await;
    lab.sql("GRANT pg_monitor, pg_signal_backend TO master WITH ADMIN OPTION").await;
    lab.sql("GRANT pg_read_all_stats TO master WITH ADMIN OPTION").await;
    lab.sql("ALTER DATABASE orders OWNER TO master").await;
    for script in [postgresql::RETIRE_SQL, postgresql::CATCH_SQL].repeat(2) {
        lab.sql(&format!("SET ROLE master; {script}")).await;
    }
    lab.sql("SET ROLE master; GRANT lb_agent_retire TO lb_agent_plain").await;
    let mut plain = lab.session("a", "lb_agent_plain").await;
    let rights = plain.rights().await.unwrap();
    assert_eq!((rights.function, rights.catch_function), (FunctionState::Ready, FunctionState::Ready));
    // No user may execute the guard itself or become its owner.
    let open = "SELECT has_function_privilege('lb_agent_plain', \
        'rds_lb_agent.guarded_close(int4, timestamptz, inet, int4, name, bool, int8, int8)', 'EXECUTE')";
    assert_eq!(lab.standin.value("a", open).await.unwrap(), "f");
    let login = "SELECT rolcanlogin FROM pg_roles WHERE rolname = 'lb_agent_retire_owner'";
    assert_eq!(lab.standin.value("a", login).await.unwrap(), "f");
    for _ in 0..2 {
        lab.sql(&format!("SET ROLE master; {}", postgresql::UNINSTALL_SQL)).await;
    }
    assert_eq!(plain.rights().await.unwrap().function, FunctionState::Missing);
    lab.shutdown().await;
}
