//! What checks are answered from.

use tokio::sync::watch;

use super::Answer;

/// What checks are answered from.
pub trait Source: Send + Sync + 'static {
    /// The answer for what is asked about, from memory: `cluster` as the service name, which
    /// is empty for the agent itself, and the endpoint as `:authority` or as the header
    /// [`HEADER`](super::HEADER). `None` while there is nothing to say and passing would be wrong.
    fn answer(&self, cluster: &str, header: Option<&str>, authority: Option<&str>) -> Option<Answer>;

    /// Changes whenever an answer may have changed.
    fn changes(&self) -> watch::Receiver<()>;
}
