//! Whose access log it is.

use std::sync::Arc;

/// One Envoy, as far as can be told: what it calls itself, and who that is. A name can be claimed
/// by anybody, and two processes of one name are two Envoys: after a hot restart, say.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Origin {
    /// Its `node.id`.
    pub node: Arc<str>,
    /// The host or process that its connections come from.
    pub peer: Arc<str>,
}
