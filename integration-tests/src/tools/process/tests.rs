//! The error that a test gets when a program fails.

use std::{fs, net::SocketAddr};

use tempfile::TempDir;

use super::*;

const PATIENCE: Duration = Duration::from_secs(20);

fn shell(folder: &TempDir, script: &str) -> Launch {
    Launch::new("shell", "sh", folder.path()).args(["-c", script])
}

#[tokio::test]
async fn a_program_that_fails_is_named_with_its_status_and_the_end_of_its_output() {
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(shell(&folder, "echo done").run(PATIENCE).await.unwrap(), "done\n");
    let error = shell(&folder, "echo the reason >&2; exit 3").run(PATIENCE).await.unwrap_err();
    let text = error.to_string();
    assert!(text.starts_with("shell ended with exit code 3") && text.ends_with("the reason"), "{text}");
    let error = Launch::new("nothing", "/no/such/program", folder.path()).run(PATIENCE).await.unwrap_err();
    assert!(error.to_string().contains("/no/such/program"), "{error}");
}

#[tokio::test]
async fn waiting_ends_with_the_reason_why_not_yet_or_at_once_with_the_program() {
    let folder = tempfile::tempdir().unwrap();
    let error = wait_for::<(), _, _, _>("the moon", Duration::from_millis(50), || async { Err("it is day") });
    let text = error.await.unwrap_err().to_string();
    assert!(text.contains("for the moon") && text.ends_with("last seen: it is day"), "{text}");

    let hangs = wait_for::<(), &str, _, _>("the moon", Duration::from_millis(50), std::future::pending);
    assert!(matches!(hangs.await, Err(Error::Deadline { .. })));

    let mut program = shell(&folder, "kill -TERM $$").spawn().unwrap();
    let error = program.ready::<(), _, _, _>("the moon", PATIENCE, || async { Err("it is day") }).await;
    assert!(error.unwrap_err().to_string().starts_with("shell ended with signal 15"));
}

#[tokio::test]
async fn a_program_ends_by_a_signal_and_with_its_process() {
    let folder = tempfile::tempdir().unwrap();
    let mut program = shell(&folder, "sleep 600 & wait").spawn().unwrap();
    let pid = program.pid();
    let child = wait_for("its child", PATIENCE, || async { children_of(pid).pop().ok_or("none") });
    let child = child.await.unwrap();

    program.signal(Signal::STOP).unwrap();
    wait_for("it to stop", PATIENCE, || async { is_stopped(pid).then_some(()).ok_or("it runs") })
        .await
        .unwrap();
    assert!(program.is_running() && is_alive(pid), "a stopped one still runs");
    program.signal(Signal::CONT).unwrap();

    let status = program.stop(Signal::TERM, PATIENCE).await.unwrap();
    assert!(!status.success() && program.running_pid().is_none());
    program.signal(Signal::TERM).unwrap();
    send_signal(child, Signal::KILL).unwrap();

    let dropped = shell(&folder, "exec sleep 600").spawn().unwrap();
    let pid = dropped.pid();
    drop(dropped);
    assert!(!is_alive(pid));
}

#[tokio::test]
async fn a_program_is_started_as_configured() {
    let folder = tempfile::tempdir().unwrap();
    let launch = shell(&folder, "id -u; pwd; echo $SAID; echo ${CARGO_MANIFEST_DIR-clean}")
        .clean_environment()
        .env("SAID", "said")
        .folder(std::path::Path::new("/"))
        .unprivileged()
        .unwrap();
    let output = launch.run(PATIENCE).await.unwrap();
    let mut lines = output.lines();
    assert_ne!(lines.next(), Some("0"));
    assert_eq!(lines.collect::<Vec<_>>(), ["/", "said", "clean"]);
    assert!(fs::metadata(folder.path().join("shell.log")).is_ok());
}

#[test]
fn a_free_port_is_free_on_each_address() {
    let addresses = [[127, 0, 0, 1], [127, 0, 0, 2], [127, 0, 0, 3]].map(Into::into);
    let port = free_port_on(&addresses).unwrap();
    let held = addresses.map(|address| std::net::TcpListener::bind(SocketAddr::new(address, port)).unwrap());
    assert_ne!(free_port().unwrap(), port);
    drop(held);
    assert!(free_port_on(&["192.0.2.1".parse().unwrap()]).is_err(), "not an address of this machine");
}
