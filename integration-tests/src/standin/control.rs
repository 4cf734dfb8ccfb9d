//! What can be done to a running stand-in.

use std::sync::PoisonError;

use futures_util::future::try_join_all;

use super::{Error, StandIn, StopMode, server::PATIENCE};
use crate::process::wait_for;

impl StandIn {
    /// Makes a replica a writer, and waits until it is one. The other servers are not
    /// changed: the old writer still accepts writes, and its replicas still follow it.
    pub async fn promote(&self, replica: &str) -> Result<(), Error> {
        let server = self.server(replica)?;
        self.common.driver.promote(server).await?;
        let what = format!("server {replica} to become the writer");
        wait_for(&what, PATIENCE, || async {
            match self.common.driver.is_writer(server).await {
                Ok(true) => Ok(()),
                Ok(false) => Err("it is a replica".to_owned()),
                Err(error) => Err(error.to_string()),
            }
        })
        .await?;
        replica.clone_into(&mut self.writer.lock().unwrap_or_else(PoisonError::into_inner));
        Ok(())
    }

    /// A failover as RDS does it: the writer is stopped, the replica takes over, the other
    /// replicas follow it, and the old writer comes back as a replica.
    pub async fn failover(&self, to: &str) -> Result<(), Error> {
        let (old, new) = (self.writer()?, self.server(to)?);
        if old.name() == new.name() {
            return Ok(());
        }
        self.common.driver.hand_over(old).await?;
        self.succeed(old.name(), to).await?;
        self.common.driver.rejoin(old, new).await
    }

    /// The replica takes over from a writer that is gone, and the other replicas follow it.
    pub async fn succeed(&self, old: &str, to: &str) -> Result<(), Error> {
        self.promote(to).await?;
        let mut others = Vec::new();
        for server in &self.servers {
            if server.name() != old && server.name() != to && server.pid().await.is_some() {
                others.push(server);
            }
        }
        try_join_all(others.into_iter().map(|replica| self.follow(replica.name()))).await.map(drop)
    }

    /// Lets a running replica follow the present writer, and waits until it does.
    pub async fn follow(&self, replica: &str) -> Result<(), Error> {
        let (server, writer) = (self.server(replica)?, self.writer()?);
        self.common.driver.follow(server, writer).await
    }

    /// Throws away what a server holds, and makes it a replica of the present writer.
    pub async fn rebuild_as_replica(&self, server: &str) -> Result<(), Error> {
        let (server, writer) = (self.server(server)?, self.writer()?);
        if server.name() == writer.name() {
            return Err(Error::IsTheWriter(server.name().to_owned()));
        }
        server.stop(StopMode::Immediate).await?;
        self.common.driver.make_replica(server, writer).await
    }

    /// Stops a server, and waits for its end. One that is frozen is thawed for that.
    pub async fn stop(&self, server: &str, mode: StopMode) -> Result<(), Error> {
        self.server(server)?.stop(mode).await
    }

    /// Starts a stopped server, on its old address.
    pub async fn start_server(&self, server: &str) -> Result<(), Error> {
        self.server(server)?.start().await
    }

    /// Stops and starts a server.
    pub async fn restart(&self, server: &str) -> Result<(), Error> {
        self.stop(server, StopMode::Fast).await?;
        self.start_server(server).await
    }

    /// Freezes a server: connections are taken by the kernel, nothing answers, nothing ends.
    pub async fn freeze(&self, server: &str) -> Result<(), Error> {
        self.server(server)?.freeze().await
    }

    /// Lets a frozen server go on.
    pub async fn thaw(&self, server: &str) -> Result<(), Error> {
        self.server(server)?.thaw().await
    }

    /// Refuses tokens from now on, genuine ones too: of one server or (`None`) all, of one
    /// user or all. Sessions that are open stay.
    pub fn refuse_tokens(&self, server: Option<&str>, user: Option<&str>) -> Result<(), Error> {
        if let Some(server) = server {
            self.server(server)?;
        }
        self.gate.refuse(server, user);
        Ok(())
    }

    /// Refuses tokens of a server above this number of logins a second, as RDS does (about 200, fewer on
    /// small instance classes); `None` for no limit, as at the start.
    pub fn throttle_logins(&self, logins_per_second: Option<usize>) {
        self.gate.throttle(logins_per_second);
    }

    /// Reverts every [`StandIn::refuse_tokens`].
    pub fn accept_tokens(&self) {
        self.gate.accept();
    }

    /// Runs statements as superuser in the database `orders`, through the Unix socket; gives
    /// the rows of all of them as text.
    pub async fn execute_sql(&self, server: &str, sql: &str) -> Result<Vec<Vec<Option<String>>>, Error> {
        self.server(server)?.execute(sql).await
    }

    /// Runs a statement as [`StandIn::execute_sql`]; gives its single value as text, empty if
    /// it is null or there is none.
    pub async fn value(&self, server: &str, sql: &str) -> Result<String, Error> {
        self.server(server)?.value(sql).await
    }
}
