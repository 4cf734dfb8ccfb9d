//! What `show servers state` prints for each way in which a server loses its new sessions, and that it does.

use haproxy::runtime::{AdminState, Check, Operational};
use integration_tests::haproxy::HaproxyBinary;

use crate::{databases::connect, lab::Lab};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_takes_new_sessions_exactly_when_the_state_says_so() {
    for binary in HaproxyBinary::all().unwrap() {
        let lab = Lab::with("haproxy.cfg", &binary).await;
        let version = &binary.version().text;
        let both = async || {
            for server in ["a", "b"] {
                lab.agent.say("orders_write", server, "up");
            }
            lab.usable("orders_write", &["a", "b"]).await;
        };
        let only_b = async |how: &str| {
            lab.usable("orders_write", &["b"]).await;
            for _ in 0..4 {
                let reached = connect(lab.haproxy.address("postgres_write")).await.unwrap();
                assert_eq!(reached.server, "b", "{version}: {how}");
            }
        };
        let mut connection = lab.open().await;
        let stat = connection.stat().await.unwrap();
        let backups: Vec<_> = stat.iter().filter(|row| row.backup).map(|row| &*row.server).collect();
        assert_eq!(backups, ["wait", "wait"], "{version}");

        for (line, back) in [("down #no", "up"), ("drain", "ready"), ("maint", "ready"), ("0%", "100%")] {
            both().await;
            lab.agent.say("orders_write", "a", line);
            only_b(line).await;
            lab.agent.say("orders_write", "a", back);
            lab.usable("orders_write", &["a", "b"]).await;
        }
        for state in [AdminState::Drain, AdminState::Maint] {
            both().await;
            connection.set_state("orders_write", "a", state).await.unwrap();
            only_b("set server state").await;
            connection.set_state("orders_write", "a", AdminState::Ready).await.unwrap();
        }
        both().await;
        connection.silent("set server orders_write/a weight 0").await.unwrap();
        only_b("weight 0").await;
        let state = &lab.states("orders_write").await[0];
        assert_eq!((state.operational, state.admin), (Operational::Running, 0), "{version}: only the weight");
        connection.silent("set server orders_write/a weight 100%").await.unwrap();

        // `disable agent` keeps the state, and the next answer of the agent changes nothing.
        both().await;
        connection.silent("disable agent orders_write/a").await.unwrap();
        lab.agent.say("orders_write", "a", "down #no");
        lab.agent.say("orders_write", "b", "down #no");
        lab.usable("orders_write", &["a"]).await;
        assert_eq!(lab.states("orders_write").await[0].agent, Check::Disabled, "{version}");
        assert_eq!(connect(lab.haproxy.address("postgres_write")).await.unwrap().server, "a", "{version}");
        assert!(connection.set_agent("orders_write", "a", false).await.is_err(), "{version}");
    }
}
