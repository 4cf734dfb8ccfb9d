//! What the examples assume about the agent.

use std::{collections::BTreeMap, time::Duration};

use doctor::setup::{Agent, Backend, Server, Setup};

/// An agent of the database `orders` whose instances are at 10.0.0.1 and 10.0.0.2.
pub fn setup() -> Setup {
    let server = |name: &str, address: [u8; 4]| {
        let server = Server {
            instance: name.into(),
            names: vec![format!("orders-{name}.abc.eu-west-1.rds.amazonaws.com")],
            port: 5432,
            addresses: vec![address.into()],
        };
        (name.to_owned(), server)
    };
    let servers = BTreeMap::from([server("a", [10, 0, 0, 1]), server("b", [10, 0, 0, 2])]);
    let agent = Agent {
        agent_check: "127.0.0.1:7878".into(),
        http: "127.0.0.1:7879".into(),
        retires: false,
        max_age: Duration::from_secs(840),
        stats_socket: Some("/run/haproxy/admin.sock".into()),
        master_socket: true,
        state_file: None,
        backends: BTreeMap::from([("orders_write".to_owned(), Backend { mysql: false, servers })]),
    };
    Setup { agent: Some(agent), ..Setup::default() }
}
