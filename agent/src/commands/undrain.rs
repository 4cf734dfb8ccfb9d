//! `undrain`: takes back one drain through the running agent.

use reqwest::Method;

use super::{Exit, control, print, release::release};
use crate::cli::Undrain;

pub(super) async fn undrain(arguments: &Undrain) -> Exit {
    let Some(server) = &arguments.server else { return release(&arguments.release).await };
    let query = [("server", server.as_str())];
    control::answer(&arguments.release.control, Method::POST, "/undrain", &query, |_| {
        print(format_args!("{server}: no longer drained"));
    })
    .await
}
