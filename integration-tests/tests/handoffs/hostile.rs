//! Datagrams that are no lines of HAProxy's log, and lines that do not arrive.

use integration_tests::{
    process::wait_for,
    scene::{PATIENCE, Scene, SessionLog, Setting},
    standin::Options,
};
use tokio::net::UdpSocket;

use crate::journal::{journal, received, row};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn foreign_datagrams_and_lost_lines_are_counted_and_harm_nothing() {
    let scene = Scene::set(Setting {
        standin: Options { replicas: 0, ..Options::default() },
        session_log: Some(SessionLog::Udp),
        ..Setting::default()
    })
    .await
    .unwrap();
    received(&scene).await;
    let sender = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    sender.connect(scene.agent.log_address()).await.unwrap();
    for length in [0, 1, 100, 4_096, 4_097, 30_000] {
        sender.send(&vec![0xfe; length]).await.unwrap();
        sender.send(&vec![b'a'; length]).await.unwrap();
    }
    let foreign =
        ["<13>sshd: Accepted", "rds-lb-agent/1 ", "rds-lb-agent/1 ci=1 ts=SC", "1:1 [] a b/c", "\u{0}\n\r"];
    for line in foreign {
        sender.send(line.as_bytes()).await.unwrap();
    }
    let unread = 12 + foreign.len() as u64;
    wait_for("all of them to be counted", PATIENCE, async || {
        let journal = journal(&scene).await;
        if journal["logs"][0]["unread"] == unread { Ok(()) } else { Err(journal.to_string()) }
    })
    .await
    .unwrap();

    // A forged line may be in the journal, and nothing acts on it. Its number shows that 41 lines are missing.
    let line = |number: u64, backend: &str| {
        format!(
            "rds-lb-agent/1 pid=7 lc={number} ci=10.1.2.3 cp=4000 f=made b={backend} s=a ts=SC Tc=-1 Tt=5 rc=0 U=0 B=0"
        )
    };
    for (number, backend) in [(8, "orders_write"), (50, "made-up")] {
        sender.send(line(number, backend).as_bytes()).await.unwrap();
    }
    row(&scene, "connect_refused", |row| row["source"] == "10.1.2.3:4000").await;
    wait_for("the lost lines to be counted", PATIENCE, async || {
        let journal = journal(&scene).await;
        let log = &journal["logs"][0];
        if log["lost"] == 41 && log["elsewhere"] == 1 { Ok(()) } else { Err(journal.to_string()) }
    })
    .await
    .unwrap();
    assert_eq!(journal(&scene).await["failed"], 1, "the backend is not configured");
    scene.routed().await.unwrap();
    let warned =
        |message: &str| scene.agent.events().iter().filter(|event| event["message"] == message).count();
    assert_eq!(warned("log lines of HAProxy lost"), 1);
    assert!((1..=3).contains(&warned("log lines of HAProxy not understood")), "{}", scene.agent.log());
    scene.clear().await.unwrap();
}
