//! Sends each command to the task that executes it. Nothing here waits for the execution.

use agent_core::plan::{CloseVia, Command, DrainSent, Outcome, Retire, Retired};
use tokio::time::Instant;

use super::Running;
use crate::{
    events::{DrainEnded, DrainForgotten, DrainNotRecorded, Event},
    messages::CloseOrder,
    proxies::haproxy::orders,
};

impl Running {
    pub(super) async fn carry_out(&mut self, command: Command) {
        match command {
            Command::Retire(retire) => self.retire(*retire),
            Command::Drain { server, reason } => {
                // On record before it is sent.
                let requested = self.decider.planner.drains().requested(&server);
                let force = requested.is_some_and(|requested| requested.force);
                let sent = match self.record(&server, reason.to_string()).await {
                    Ok(()) => self.decider.routes.drain(&server, force),
                    Err(error) => {
                        self.causes.insert(server.clone(), format!("the record cannot be written: {error}"));
                        DrainNotRecorded { server: &server, error }.emit(&self.decider.shared.metrics);
                        false
                    }
                };
                if !sent {
                    self.forget(&server).await;
                    let outcome = Outcome::Drain { server, sent: DrainSent::NotSent };
                    self.decider.planner.outcome(self.decider.shared.clock.now(), &outcome);
                }
            }
            Command::Undrain { server, reason } => {
                if self.episodes.begins(&format!("undrain {server}"), "") {
                    DrainEnded { server: &server, reason }.emit(&self.decider.shared.metrics);
                }
                self.decider.routes.undrain(&server);
            }
            Command::Forget { server } => {
                self.episodes.ends(&format!("undrain {server}"));
                DrainForgotten { server: &server }.emit(&self.decider.shared.metrics);
                self.forget(&server).await;
            }
        }
    }

    pub(super) fn retire(&mut self, retire: Retire) {
        let sent = match retire.how.via() {
            CloseVia::Database => self.decider.routes.instances.get(&retire.instance).is_some_and(|route| {
                let order = CloseOrder { command: retire.clone(), decided: Instant::now() };
                route.try_send(order).is_ok()
            }),
            CloseVia::Proxy => {
                let command = orders::Command::Close(Box::new(retire.clone()));
                self.decider.routes.haproxy(&retire.proxy.server, command)
            }
        };
        if sent {
            return;
        }
        let outcome =
            Outcome::Retire { instance: retire.instance, key: retire.key, retired: Retired::Failed };
        self.decider.planner.outcome(self.decider.shared.clock.now(), &outcome);
    }
}
