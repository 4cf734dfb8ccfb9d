//! What an entry of Envoy's access log means, in the words that HAProxy's sessions have too. Pure.

use std::{borrow::Cow, sync::Arc};

use agent_core::{
    DatabaseName, InstanceId,
    hand_offs::{Certainty, Failure, Phase},
};
use envoy::access_log::{Event as Entry, HandOff};

/// Phase and certainty of a hand-off.
pub fn judge(hand_off: HandOff) -> (Phase, Certainty) {
    let phase = match hand_off {
        HandOff::NoHealthyHost => Phase::NoServer,
        HandOff::Refused => Phase::ConnectRefused,
        HandOff::TimedOut => Phase::ConnectTimedOut,
        HandOff::ConnectFailed => Phase::ConnectFailed,
        HandOff::NoCluster => Phase::NoRoute,
        HandOff::NotResolved => Phase::NotResolved,
        HandOff::Overflow => Phase::ProxyRefused,
        HandOff::IdleTimedOut => Phase::IdleTimedOut,
        HandOff::Cut => Phase::CutByProxy,
        HandOff::ShortSession => return (Phase::LoginRefused, Certainty::Suspected),
    };
    (phase, Certainty::Certain)
}

/// Where a session belongs.
#[derive(Clone, Debug)]
pub struct Place<'a> {
    pub proxy: &'a str,
    /// Its cluster as metrics may name it.
    pub label: &'a str,
    /// The database of its cluster, if it is configured.
    pub database: Option<DatabaseName>,
    /// Its instance, if it is known.
    pub instance: Option<InstanceId>,
}

/// The failure of a session.
pub fn failure(place: Place<'_>, entry: &Entry, (phase, certainty): (Phase, Certainty)) -> Failure {
    let Place { proxy, label, database, instance } = place;
    let server = instance.as_ref().map(|instance| Arc::from(instance.instance.as_str()));
    let message = entry.transport_failure.as_deref().or(entry.termination.as_deref());
    Failure {
        proxy: proxy.into(),
        backend: entry.cluster.clone().unwrap_or_else(|| "-".into()),
        configured: label != "other",
        server: server.or_else(|| entry.peer.map(|peer| peer.to_string().into())),
        database,
        instance,
        source: entry.source,
        outgoing: entry.outgoing,
        phase,
        certainty,
        state: Cow::Owned(entry.flags.to_string()),
        meaning: Cow::Borrowed(phase.cause()),
        lasted: entry.lasted.unwrap_or_default(),
        connected: None,
        retries: None,
        from_client: entry.received,
        to_client: entry.sent,
        error: message.map(Arc::from),
    }
}
