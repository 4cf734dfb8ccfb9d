//! Whether changed files make a configuration that can be applied as a whole.
//!
//! Everything that can fail is done here, before anything of the running generation is stopped. What
//! cannot be applied is refused, and the configuration in force stays.

use std::path::Path;

use super::{authorities::Authorities, listeners::Listeners, logins::Logins, tasks::Prepared};
use crate::{
    config::{self, Config},
    events::{ConfigRefused, ConfigRepaired, Event},
    proxies::envoy::discovery::Envoys,
    shared::Shared,
};

/// The configuration that the running generation was made from.
pub(super) struct InForce {
    pub(super) config: Config,
    pub(super) authorities: Authorities,
    pub(super) logins: Logins,
}

/// A new configuration that can be applied as a whole.
pub(super) struct Changed {
    pub(super) config: Config,
    pub(super) authorities: Authorities,
    pub(super) prepared: Prepared,
}

pub(super) struct Reload<'a> {
    path: &'a Path,
    envoys: Envoys,
    /// Why the last file was refused. The directory changes for other reasons too (a log file in it,
    /// for example), and the same refusal is logged once.
    refused: Option<String>,
}

// === impl Reload ===

impl<'a> Reload<'a> {
    pub(super) fn new(path: &'a Path, envoys: Envoys) -> Self {
        Self { path, envoys, refused: None }
    }

    /// Logs the next refusal even if it is the same as the last one: an operator asked for a reload.
    pub(super) fn report_again(&mut self) {
        self.refused = None;
    }

    /// The new configuration; `None` if nothing changed or it was refused, which is logged here.
    pub(super) async fn changed(
        &mut self,
        in_force: &InForce,
        listeners: &mut Listeners,
        shared: &Shared,
    ) -> Option<Changed> {
        let before = self.refused.take();
        match self.load(in_force, listeners, shared).await {
            Ok(changed) => {
                // A file that is the one in force again ends the refusal as well.
                if changed.is_none() && before.is_some() {
                    ConfigRepaired { config: &self.path.display().to_string() }.emit(&shared.metrics);
                }
                changed
            }
            Err(error) => {
                if before.as_ref() != Some(&error) {
                    ConfigRefused { config: &self.path.display().to_string(), error: &error }
                        .emit(&shared.metrics);
                }
                self.refused = Some(error);
                None
            }
        }
    }

    async fn load(
        &self,
        in_force: &InForce,
        listeners: &mut Listeners,
        shared: &Shared,
    ) -> Result<Option<Changed>, String> {
        let config = config::load(self.path).map_err(|problems| problems.brief())?.config;
        let authorities = Authorities::of(&config);
        if config == in_force.config && authorities == in_force.authorities {
            return Ok(None);
        }
        if config.state_dir != in_force.config.state_dir {
            return Err("`state_dir` can only be changed by a restart".into());
        }
        let prepared = Prepared::new(&config, &self.envoys, shared, Some(&in_force.logins));
        if config.listen != in_force.config.listen {
            listeners.reopen(&config, shared).await.map_err(|error| error.to_string())?;
        }
        Ok(Some(Changed { config, authorities, prepared }))
    }
}
