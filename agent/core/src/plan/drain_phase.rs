//! The phases of a drain, and what a proxy shows of it.

use serde::{Serialize, Serializer, ser::SerializeStruct};

use super::{AdminFlags, DrainReason};
use crate::Time;

/// The state of one server's drain. Serialized, it is what `/debug/state` shows.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum DrainPhase {
    /// None of the agent's.
    #[default]
    Idle,
    /// Commanded; whether it was sent is not known yet.
    Sending { since: Time, reason: DrainReason },
    /// Recorded and sent, since then; or since a restart of the proxy, which may have lost it.
    Held {
        since: Time,
        reason: DrainReason,
        #[serde(flatten)]
        carrier: Carrier,
    },
    /// The drain is being ended.
    Undoing {
        since: Time,
        /// When the runtime API was last asked to.
        asked: Option<Time>,
        /// Agent-check answers that carried `ready`.
        delivered: u32,
        #[serde(skip)]
        left: Left,
    },
}

/// How a drain reaches the proxy.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Carrier {
    /// The proxy took it at a command, and shows it.
    Command,
    /// The command may have been lost. Agent-check answers carry the drain until the proxy's own
    /// table has shown it.
    Answers { shown: bool },
}

/// What a drain that is being taken back may have left at the proxy. It decides what ends it.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Left {
    /// The command to drain was given then and is still unanswered: it may yet take effect.
    Unanswered { sent: Time },
    /// A drain by command: over once the proxy has taken its end.
    ByCommand,
    /// A drain by agent-check answers, which may be read late: over once the table shows it gone.
    ByAnswers,
    /// The record of an earlier agent, not yet compared with the proxy's table.
    Adopted,
    /// Nothing but the record: the proxy has taken the end of the drain.
    Record,
}

impl Carrier {
    pub(super) fn shown(self) -> bool {
        matches!(self, Self::Command | Self::Answers { shown: true })
    }
}

impl Serialize for Carrier {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut fields = serializer.serialize_struct("Carrier", 2)?;
        fields.serialize_field("confirmed", &self.shown())?;
        fields.serialize_field("by_answer", &matches!(self, Self::Answers { .. }))?;
        fields.end()
    }
}

impl DrainPhase {
    /// Asked for by an operator and not ended.
    pub fn is_operators(self) -> bool {
        matches!(self, Self::Sending { reason, .. } | Self::Held { reason, .. } if reason == DrainReason::Operator)
    }

    pub(super) fn undoing(now: Time, asked: Option<Time>, left: Left) -> Self {
        Self::Undoing { since: now, asked, delivered: 0, left }
    }
}

/// What a proxy shows of a server's drain.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Shown {
    /// HAProxy's admin flags, which the agent and operators share.
    Admin(AdminFlags),
    /// The endpoints that the agent sends to Envoy, where only the agent drains.
    Endpoint { drained: bool },
}

impl Shown {
    /// Drained, and nothing else: it may be the agent's own.
    pub(super) fn own_drain(self) -> bool {
        match self {
            Self::Admin(flags) => flags.drain && !flags.maint,
            Self::Endpoint { drained } => drained,
        }
    }

    /// In maintenance, which is never the agent's.
    pub(super) fn maint(self) -> bool {
        matches!(self, Self::Admin(flags) if flags.maint)
    }

    /// The proxy sends new sessions there, for all that is set.
    pub(super) fn clear(self) -> bool {
        match self {
            Self::Admin(flags) => flags.clear(),
            Self::Endpoint { drained } => !drained,
        }
    }

    /// Set by others than the agent, beside or instead of a drain.
    pub(super) fn others(self) -> bool {
        matches!(self, Self::Admin(flags) if flags.maint || flags.other || flags.weightless)
    }
}
