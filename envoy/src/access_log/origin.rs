//! The Envoy that an access log is from.

use std::sync::Arc;

/// One Envoy, identified by its name and its peer. Any peer can use any name, and two processes with one
/// name are two Envoys, for example after a hot restart.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Origin {
    /// The `node.id` of the Envoy.
    pub node: Arc<str>,
    /// The host or process of its connections.
    pub peer: Arc<str>,
}
