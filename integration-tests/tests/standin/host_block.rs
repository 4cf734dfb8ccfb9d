//! The trap of MySQL and MariaDB that a stand-in has to have: connections without a login
//! block the address that they come from.
//!
//! Nothing of it can be seen from 127.0.0.1, which the server never blocks.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use integration_tests::{
    mysql::Error,
    process::wait_for,
    standin::{Engine, Options, StandIn},
};
use tokio::{io::AsyncReadExt, net::TcpSocket};

use super::PATIENCE;

const ELSEWHERE: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));
const BLOCKED: u16 = 1129;

/// Logs in from there as `app`.
async fn log_in_from(standin: &StandIn, from: IpAddr) -> Result<(), Error> {
    let mut login = standin.mysql_login("a", "app").unwrap();
    login.from = Some(from);
    login.connect().await?.quit().await
}

/// Takes the greeting, and goes.
async fn connect_and_go(standin: &StandIn, from: IpAddr) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::new(from, 0)).unwrap();
    let mut stream = socket.connect(standin.server("a").unwrap().connect()).await.unwrap();
    stream.read_exact(&mut [0; 4]).await.unwrap();
}

async fn errors_counted(standin: &StandIn) -> String {
    let count = "SELECT sum_connect_errors FROM performance_schema.host_cache WHERE ip = '127.0.0.2'";
    standin.value("a", count).await.unwrap()
}

#[tokio::test]
async fn connections_without_a_login_block_their_address_and_a_login_resets_the_count() {
    let options =
        Options { engine: Engine::Mariadb, replicas: 0, max_connect_errors: 5, ..Options::default() };
    let standin = StandIn::start(options).await.unwrap();
    log_in_from(&standin, ELSEWHERE).await.unwrap();
    let counts = async |expected: &str| {
        let look = || async {
            let counted = errors_counted(&standin).await;
            if counted == expected { Ok(()) } else { Err(format!("{counted} errors are counted")) }
        };
        wait_for(&format!("{expected} errors to be counted"), PATIENCE, look).await.unwrap();
    };

    for _ in 0..4 {
        connect_and_go(&standin, ELSEWHERE).await;
    }
    counts("4").await;
    log_in_from(&standin, ELSEWHERE).await.unwrap();
    counts("0").await;

    for _ in 0..5 {
        connect_and_go(&standin, ELSEWHERE).await;
    }
    counts("5").await;
    let blocked = log_in_from(&standin, ELSEWHERE).await.unwrap_err();
    assert_eq!(blocked.code(), Some(BLOCKED), "{blocked}");

    // The address that every test comes from is not affected, by nothing.
    for _ in 0..20 {
        connect_and_go(&standin, Ipv4Addr::LOCALHOST.into()).await;
    }
    log_in_from(&standin, Ipv4Addr::LOCALHOST.into()).await.unwrap();

    standin.execute_sql("a", "FLUSH HOSTS").await.unwrap();
    log_in_from(&standin, ELSEWHERE).await.unwrap();
    standin.shutdown().await.unwrap();
}
