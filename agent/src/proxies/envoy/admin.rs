//! The admin interface of one Envoy: whether it took what it was sent, and whether its
//! settings are safe. It changes and decides nothing; it reports.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use envoy::{
    admin::{Address, Admin, AdminError, Advice, Difference, Setup, advise, confirm},
    eds::Snapshot,
};
use tokio::{
    sync::watch,
    time::{Instant, sleep},
};

use crate::{
    events::{AdminBack, AdminLost, Episodes, Event, LogEntriesLost, NotTaken, SettingUnsafe},
    shared::Shared,
};

/// Between two looks at what Envoy has.
const ROUND: Duration = Duration::from_secs(2);

/// Between two looks at how it is set up, which is a large answer.
const SETTINGS: Duration = Duration::from_secs(60);

/// A difference that lasts this long is none that a push under way makes.
const LASTS: Duration = Duration::from_secs(6);

#[derive(Clone, Debug)]
pub struct Config {
    /// Its name in logs and metrics.
    pub name: String,
    pub address: Address,
    /// What its settings are to be fit for.
    pub setup: Setup,
    /// The longest `access_log_flush_interval` of any Envoy, which this one may make longer.
    pub flush: watch::Sender<Duration>,
}

/// Looks after one Envoy's admin interface, for ever. `sent` is what it is sent, if it
/// takes endpoints from the agent now.
pub async fn run(config: Config, sent: impl Fn() -> Option<Snapshot> + Send, shared: Shared) {
    let mut episodes = Episodes::default();
    let admin = match Admin::new(config.address.clone()) {
        Ok(admin) => admin,
        Err(error) => {
            AdminLost { proxy: &config.name, error: error.to_string() }.emit(&shared.metrics);
            return std::future::pending().await;
        }
    };
    let mut task = Task {
        config,
        admin,
        shared,
        up: false,
        settings_at: None,
        reported: BTreeSet::new(),
        since: BTreeMap::new(),
        lost: 0,
    };
    loop {
        match task.round(&sent).await {
            Ok(()) => {
                episodes.ends("admin");
            }
            Err(error) => {
                (task.up, task.settings_at) = (false, None);
                task.since.clear();
                if episodes.begins("admin", &error.to_string()) {
                    AdminLost { proxy: &task.config.name, error: error.to_string() }
                        .emit(&task.shared.metrics);
                }
            }
        }
        sleep(ROUND).await;
    }
}

struct Task {
    config: Config,
    admin: Admin,
    shared: Shared,
    /// Whether it answered the last time.
    up: bool,
    /// When its settings were last looked at.
    settings_at: Option<Instant>,
    /// The advice that was logged.
    reported: BTreeSet<Advice>,
    /// Since when each difference has been there, and whether it was logged.
    since: BTreeMap<Difference, (Instant, bool)>,
    /// Access log entries that Envoy could not send, when last asked.
    lost: u64,
}

impl Task {
    async fn round(&mut self, sent: &(impl Fn() -> Option<Snapshot> + Send)) -> Result<(), AdminError> {
        if !self.up {
            let info = self.admin.server_info().await?;
            AdminBack {
                proxy: &self.config.name,
                version: &info.version,
                node: &info.node,
                state: &info.state,
            }
            .emit(&self.shared.metrics);
            self.up = true;
        }
        if self.settings_at.is_none_or(|at| at.elapsed() >= SETTINGS) {
            self.settings().await?;
            self.entries_lost().await?;
            self.settings_at = Some(Instant::now());
        }
        let clusters = self.admin.clusters().await?;
        // One that is not connected keeps what it had: that is logged elsewhere.
        let differences = sent().map(|sent| confirm(&sent, &clusters)).unwrap_or_default();
        self.differences(&differences);
        Ok(())
    }

    async fn settings(&mut self) -> Result<(), AdminError> {
        let settings = self.admin.settings().await?;
        if let Some(interval) = settings.log_interval() {
            self.config.flush.send_if_modified(|longest| {
                let longer = interval > *longest;
                *longest = interval.max(*longest);
                longer
            });
        }
        let advice: BTreeSet<Advice> = advise(&settings, &self.config.setup).into_iter().collect();
        for new in advice.difference(&self.reported) {
            SettingUnsafe { proxy: &self.config.name, advice: new }.emit(&self.shared.metrics);
        }
        self.reported = advice;
        self.shared
            .metrics
            .envoy_advice
            .get_or_create(&self.config.name.as_str().into())
            .set(i64::try_from(self.reported.len()).unwrap_or(i64::MAX));
        Ok(())
    }

    async fn entries_lost(&mut self) -> Result<(), AdminError> {
        let lost = self.admin.stats("^access_logs").await?.log_entries_lost();
        // Fewer than before: it was started anew.
        let more = lost.checked_sub(self.lost).unwrap_or(lost);
        if more > 0 {
            LogEntriesLost { proxy: &self.config.name, count: more }.emit(&self.shared.metrics);
        }
        self.lost = lost;
        Ok(())
    }

    fn differences(&mut self, now: &[Difference]) {
        self.since.retain(|difference, _| now.contains(difference));
        for difference in now {
            let (since, reported) = self.since.entry(difference.clone()).or_insert((Instant::now(), false));
            if !*reported && since.elapsed() >= LASTS {
                *reported = true;
                NotTaken { proxy: &self.config.name, difference }.emit(&self.shared.metrics);
            }
        }
        let lasting = self.since.values().filter(|(_, reported)| *reported).count();
        self.shared
            .metrics
            .envoy_differences
            .get_or_create(&self.config.name.as_str().into())
            .set(i64::try_from(lasting).unwrap_or(i64::MAX));
    }
}
