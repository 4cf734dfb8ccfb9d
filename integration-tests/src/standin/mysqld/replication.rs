//! Replication of MySQL by GTID. The data of the template has no history, so a replica that starts from it receives
//! all that its writer has done since.

use std::time::Duration;

use super::{configure, superuser};
use crate::{
    mysql::{self, Record},
    process::wait_for,
    standin::{Error, Server, StopMode, server::PATIENCE},
};

/// The longest wait of a writer that stops for its replicas.
const HAND_OVER: Duration = Duration::from_secs(10);

/// Replicas that have not been sent all that the writer has.
const BEHIND: &str = "SELECT count(*) FROM performance_schema.processlist \
                      WHERE command LIKE 'Binlog Dump%' AND state NOT LIKE '%sent all binlog%'";

/// Stops the writer when it has sent all that it has, or after [`HAND_OVER`].
pub(super) async fn hand_over(writer: &Server) -> Result<(), Error> {
    if writer.execute("SET GLOBAL super_read_only = ON").await.is_ok() {
        let sent = || async {
            match writer.value(BEHIND).await {
                Ok(behind) if behind == "0" => Ok(()),
                Ok(behind) => Err(format!("{behind} replicas are behind")),
                Err(error) => Err(error.to_string()),
            }
        };
        // One that waits for ever loses its replicas no more than a crash does.
        let _ = wait_for("the replicas", HAND_OVER, sent).await;
    }
    writer.stop(StopMode::Fast).await
}

/// All that it has received is applied first.
pub(super) async fn promote(replica: &Server) -> Result<(), Error> {
    replica.execute("STOP REPLICA IO_THREAD").await?;
    let what = format!("server {} to apply what it has", replica.name());
    let applied = || async {
        let Some(status) = status(replica).await.map_err(|error| error.to_string())? else {
            return Ok(());
        };
        let received = said(&status, "Retrieved_Gtid_Set").replace('\n', "");
        let look = format!("SELECT GTID_SUBSET('{received}', @@global.gtid_executed)");
        match replica.value(&look).await {
            Ok(all) if all == "1" => Ok(()),
            Ok(_) => Err(format!("it has received {received}")),
            Err(error) => Err(error.to_string()),
        }
    };
    wait_for(&what, PATIENCE, applied).await?;
    configure(replica, None)?;
    let open =
        "STOP REPLICA; RESET REPLICA ALL; SET GLOBAL super_read_only = OFF; SET GLOBAL read_only = OFF";
    replica.execute(open).await.map(drop)
}

/// Lets a running server follow a writer, and waits until it does.
pub(super) async fn follow(replica: &Server, writer: &Server) -> Result<(), Error> {
    configure(replica, Some(writer))?;
    let common = writer.common();
    let follow = format!(
        "STOP REPLICA; SET GLOBAL read_only = ON; \
         CHANGE REPLICATION SOURCE TO SOURCE_HOST = '{}', SOURCE_PORT = {}, SOURCE_USER = 'replicator', \
         SOURCE_PASSWORD = '{}', SOURCE_SSL = 1, SOURCE_SSL_CA = '{}', SOURCE_SSL_VERIFY_SERVER_CERT = 0, \
         SOURCE_CONNECT_RETRY = 1, SOURCE_HEARTBEAT_PERIOD = 2, SOURCE_AUTO_POSITION = 1; START REPLICA",
        writer.connect().ip(),
        writer.connect().port(),
        common.passwords.replicator,
        common.ca_file.display(),
    );
    replica.execute(&follow).await?;
    wait_until_follows(writer, replica).await
}

/// Whether the writer has all that this server has.
pub(super) async fn includes(writer: &Server, server: &Server) -> Result<bool, Error> {
    let held = executed(server).await?;
    Ok(writer.value(&format!("SELECT GTID_SUBSET('{held}', @@global.gtid_executed)")).await? == "1")
}

/// Until it has applied all that the writer has now.
async fn wait_until_follows(writer: &Server, replica: &Server) -> Result<(), Error> {
    let position = executed(writer).await?;
    let what = format!("server {} to follow {}", replica.name(), writer.name());
    let look = format!("SELECT WAIT_FOR_EXECUTED_GTID_SET('{position}', 0.2)");
    let follows = || async {
        let status = status(replica).await.map_err(|error| error.to_string())?;
        let Some(status) = status else { return Err("it follows no server".to_owned()) };
        if let Some(failure) = failure(&status) {
            return Ok(Some(failure));
        }
        if said(&status, "Replica_IO_Running") != "Yes" {
            return Err(said(&status, "Last_IO_Error").to_owned());
        }
        match replica.value(&look).await {
            Ok(reached) if reached == "0" => Ok(None),
            Ok(_) => Err(format!("it has not reached {position}")),
            Err(error) => Err(error.to_string()),
        }
    };
    match wait_for(&what, PATIENCE, follows).await? {
        None => Ok(()),
        Some(reason) => Err(Error::CannotFollow { server: replica.name().to_owned(), reason }),
    }
}

async fn executed(server: &Server) -> Result<String, Error> {
    Ok(server.value("SELECT @@global.gtid_executed").await?.replace('\n', ""))
}

/// `None` when it follows no server.
async fn status(server: &Server) -> Result<Option<Record>, mysql::Error> {
    let mut session = superuser(server).await?;
    let status = session.records("SHOW REPLICA STATUS").await?.pop();
    session.quit().await?;
    Ok(status)
}

fn said<'a>(status: &'a Record, column: &str) -> &'a str {
    status.get(column).and_then(Option::as_deref).unwrap_or_default()
}

/// Why replication has stopped for good.
fn failure(status: &Record) -> Option<String> {
    ["IO", "SQL"].into_iter().find_map(|thread| {
        let stopped = said(status, &format!("Replica_{thread}_Running")) == "No";
        let failed = said(status, &format!("Last_{thread}_Errno")) != "0";
        (stopped && failed).then(|| said(status, &format!("Last_{thread}_Error")).to_owned())
    })
}
