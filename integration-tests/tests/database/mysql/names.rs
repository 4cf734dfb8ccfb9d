//! A client whose address the server resolves to a name.

use std::{
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use agent_database::{Method, RetireOutcome, RetireTarget, Session as _, mysql::OpenTransactions};
use integration_tests::standin::Options;

use super::{
    clients::{eventually, idle, row_that},
    lab::Lab,
};

const NAMED: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 8);
const QUIET: Duration = Duration::from_millis(250);

#[tokio::test]
async fn a_host_name_is_no_address_unless_the_server_shows_the_socket() {
    for (performance_schema, mode) in
        [(true, OpenTransactions::PerformanceSchema), (false, OpenTransactions::InnodbTrx)]
    {
        let names = vec![(NAMED, "balancer.internal".to_owned())];
        let lab =
            Lab::start_with(Options { replicas: 0, performance_schema, names, ..Options::default() }).await;
        let mut agent = lab.session("a", "lb_agent").await.relying_on(mode);
        let mut client = lab.client_from(NAMED.octets(), "app").await;
        let host = format!("SELECT HOST FROM information_schema.PROCESSLIST WHERE ID = {}", client.id());
        let host = lab.standin.value("a", &host).await.unwrap();
        let port = host.strip_prefix("balancer.internal:").expect(&host).parse().unwrap();
        let address = SocketAddr::new(NAMED.into(), port);

        let seen = row_that(&mut agent, client.id(), idle).await;
        assert_eq!(seen.client, performance_schema.then_some(address), "{host}");
        let target =
            |client| RetireTarget { key: seen.key, client, user: seen.user.clone(), any_user: false };
        // Another who resolves to the same name may use the same port.
        let another = SocketAddr::new(Ipv4Addr::new(127, 0, 0, 9).into(), port);
        let outcome = agent.retire(&target(another), Method::Signal, QUIET).await;
        assert_eq!(outcome, RetireOutcome::Changed, "{mode:?}");
        let agent = tokio::sync::Mutex::new(agent);
        let outcome = eventually("a verdict", || async {
            match agent.lock().await.retire(&target(address), Method::Signal, QUIET).await {
                early @ (RetireOutcome::NotQuiet(_) | RetireOutcome::NotIdle) => Err(format!("{early:?}")),
                outcome => Ok(outcome),
            }
        })
        .await;
        if performance_schema {
            assert_eq!(outcome, RetireOutcome::Closed);
            assert!(client.unasked().await.is_closed());
        } else {
            assert_eq!(outcome, RetireOutcome::Changed);
            client.query("DO 1").await.unwrap();
        }
        lab.shutdown().await;
    }
}
