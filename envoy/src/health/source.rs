//! The source of answers.

use tokio::sync::watch;

use super::Answer;

pub trait Source: Send + Sync + 'static {
    /// The answer from memory. `cluster` is the service name, empty for the agent itself; the endpoint is in
    /// `authority` (`:authority` or Host) or in `header` ([`HEADER`](super::HEADER)). `None` while nothing is
    /// known and passing would be wrong.
    fn answer(&self, cluster: &str, header: Option<&str>, authority: Option<&str>) -> Option<Answer>;

    /// Changes whenever an answer may have changed.
    fn changes(&self) -> watch::Receiver<()>;
}
