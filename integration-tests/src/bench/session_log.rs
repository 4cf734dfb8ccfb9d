//! HAProxy's log at 20,000 lines a second, sent to the running agent: what it costs, and whether lines are lost. One line in
//! a hundred is of a refused connection, as in a bad hour.

use std::{
    hint::black_box,
    net::UdpSocket,
    time::{Duration, Instant},
};

use haproxy::log::{Line, parse};
use serde_json::{Value, json};

use super::{Bar, Error, Measurement, Report, idle::cpu_seconds};
use crate::{
    process::wait_for,
    scene::{PATIENCE, Scene, SessionLog, Setting},
    standin::Options,
};

/// Lines a second.
const RATE: u64 = 20_000;

/// Lines that are sent at once: HAProxy's come in bursts too.
const BURST: u64 = 40;

pub(super) async fn run(quick: bool, report: &mut Report) -> Result<(), Error> {
    report.tell(&Measurement::new("session_log_parse", parsed(quick)?, "lines/s"))?;
    let scene = Scene::set(Setting {
        standin: Options { replicas: 0, ..Options::default() },
        session_log: Some(SessionLog::Udp),
        ..Setting::default()
    })
    .await?;
    let pid = scene.agent.pid().ok_or_else(|| Error::Unexpected("the agent does not run".into()))?;
    let seconds = if quick { 3 } else { 10 };
    let (began, before) = (Instant::now(), cpu_seconds(pid)?);
    let to = scene.agent.log_address();
    let sent = tokio::task::spawn_blocking(move || send(to, RATE * seconds)).await;
    let took = sent.map_err(|error| Error::Unexpected(error.to_string()))??;
    let cpu = (cpu_seconds(pid)? - before) / began.elapsed().as_secs_f64() * 100.0;
    let all = RATE * seconds;
    let log = wait_for("all lines to be counted", PATIENCE, async || {
        let (_, body) = scene.agent.get("/handoffs").await.map_err(|error| error.to_string())?;
        let view: Value = serde_json::from_str(&body).map_err(|error| error.to_string())?;
        let log = view.pointer("/logs/0").cloned().unwrap_or_default();
        let count = |key: &str| log.get(key).and_then(Value::as_u64).unwrap_or(0);
        if count("sessions") + count("lost") >= all {
            Ok((count("sessions"), count("lost")))
        } else {
            Err(log.to_string())
        }
    });
    let (read, lost) = log.await?;
    scene.clear().await?;
    let rate = all as f64 / took.as_secs_f64();
    let bar = Bar::default()
        .count("lost lines", lost, 0)
        .holds(format!("{read} of {all} read"), read >= all)
        .holds(format!("{rate:.0} lines a second sent"), rate > RATE as f64 * 0.95)
        .at_most("percent of a core", cpu, 100.0);
    let details = json!({"sent": all, "read": read, "lost": lost, "cpu_percent": cpu});
    report.tell(&Measurement::new("session_log_rate", rate, "lines/s").bar(bar).details(&details))?;
    report.tell(&Measurement::new("session_log_cpu", cpu, "% of a core"))
}

/// How many lines this process reads in a second.
fn parsed(quick: bool) -> Result<f64, Error> {
    let line = line(7);
    let patience = Duration::from_millis(if quick { 200 } else { 1_000 });
    let (began, mut count) = (Instant::now(), 0_u32);
    while began.elapsed() < patience {
        for _ in 0..1_000 {
            match parse(black_box(line.as_bytes())) {
                Ok(Line::Ended(ended)) => drop(black_box(ended)),
                other => return Err(Error::Unexpected(format!("{other:?}"))),
            }
        }
        count += 1_000;
    }
    Ok(f64::from(count) / began.elapsed().as_secs_f64())
}

/// Sends lines at the rate; the time that it took.
fn send(to: std::net::SocketAddr, all: u64) -> Result<Duration, Error> {
    let socket = UdpSocket::bind("127.0.0.1:0")?;
    socket.connect(to)?;
    let began = Instant::now();
    for number in 0..all {
        if number % BURST == 0 {
            let due = Duration::from_secs_f64(number as f64 / RATE as f64);
            std::thread::sleep(due.saturating_sub(began.elapsed()));
        }
        socket.send(line(number).as_bytes())?;
    }
    Ok(began.elapsed())
}

fn line(number: u64) -> String {
    let (ip, port) = (number / 50_000 % 250, 10_000 + number % 50_000);
    let end = if number % 100 == 99 {
        "ts=SC Tw=1 Tc=-1 Tt=3004 rc=3 U=8 B=0"
    } else {
        "ts=SD Tw=1 Tc=0 Tt=81230 rc=0 U=41800 B=902260"
    };
    format!(
        "<134>Nov 29 08:06:38 haproxy[12440]: rds-lb-agent/1 pid=12440 lc={number} rt={number} ci=10.0.{ip}.7 cp={port} \
         f=write b=orders_write s=a si=10.0.0.5 sp=5432 bi=10.0.0.4 bp={port} {end}"
    )
}
