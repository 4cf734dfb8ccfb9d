//! Label sets: a struct for each, in the order in which its labels are exposed, and enums for the
//! values that the agent itself chooses.

use std::fmt::{self, Write};

use agent_core::{FaultKind, InstanceId, ServerId, hand_offs::Failure, plan::DrainReason};
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};
use serde::Serialize;
use serde_json::Value;

/// The names of the labels of a set, for the documentation.
pub(super) trait LabelNames {
    const NAMES: &'static [&'static str];
}

macro_rules! label_sets {
    ($($set:ident { $($label:ident: $value:ty),* })*) => {$(
        #[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
        pub struct $set { $(pub $label: $value),* }

        impl LabelNames for $set {
            const NAMES: &'static [&'static str] = &[$(stringify!($label)),*];
        }
    )*};
}

macro_rules! label_values {
    ($($values:ident { $($value:ident = $word:literal),* })*) => {$(
        #[derive(Copy, Clone, Debug, PartialEq, Eq, Hash)]
        pub enum $values { $($value),* }

        impl EncodeLabelValue for $values {
            fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> fmt::Result {
                encoder.write_str(match self { $(Self::$value => $word),* })
            }
        }
    )*};
}

label_sets! {
    OfInstance { database: String, instance: String }
    OfLogin { database: String, instance: String, result: LoginResult }
    OfPhase { database: String, instance: String, phase: Phase }
    OfLiveness { database: String, instance: String, result: LivenessResult }
    OfAddress { database: String, instance: String, address: String }
    OfReset { database: String, instance: String, result: ResetResult }
    OfClose { database: String, instance: String, result: CloseResult }
    OfDatabase { database: String }
    OfAnswered { database: String, result: String }
    OfBackend { backend: String }
    OfServer { backend: String, server: String }
    OfRole { database: String, instance: String, role: Word }
    OfMode { mode: Word }
    OfBuild { version: String }
    OfPath { path: String }
    OfSource { database: String, instance: String, source: Word }
    OfState { backend: String, server: String, state: Word }
    OfDrain { backend: String, server: String, reason: Word }
    OfHold { reason: Word }
    OfProxy { proxy: String }
    OfFailure { proxy: String, backend: String, server: String, phase: Word, certainty: Word }
    OfLine { proxy: String, result: LineResult }
    OfPush { proxy: String, result: PushResult }
    OfAnswer { answer: Answer }
    OfQuestion { question: Question }
    OfReload { result: ReloadResult }
}

label_values! {
    Phase { Dns = "dns", Tcp = "tcp", Tls = "tls", Login = "login" }
    LivenessResult { Ok = "ok", Failed = "failed", Starved = "starved" }
    ResetResult { Reset = "reset", Unchanged = "unchanged", Failed = "failed" }
    PushResult { Taken = "taken", Rejected = "rejected" }
    Question { Http = "http", AgentCheck = "agent_check" }
    Answer { Server = "server", UnknownServer = "unknown_server" }
    ReloadResult { Taken = "taken", Refused = "refused" }
    LineResult { Session = "session", Notice = "notice", Elsewhere = "elsewhere", Unread = "unread" }
}

/// A value of one of the agent's enums, by its name in JSON.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Word(String);

/// `ok`, or the kind of the fault.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash)]
pub enum LoginResult {
    Ok,
    Failed(FaultKind),
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct CloseResult(pub Word);

// === impl OfInstance ===

impl From<&InstanceId> for OfInstance {
    fn from(id: &InstanceId) -> Self {
        Self { database: id.database.to_string(), instance: id.instance.to_string() }
    }
}

// === impl OfServer, OfState, OfDrain ===

impl From<&ServerId> for OfServer {
    fn from(id: &ServerId) -> Self {
        // The prefix of an ambiguous name belongs to the backend.
        let name = id.to_string();
        let (backend, server) = name.rsplit_once('/').unwrap_or(("", &name));
        Self { backend: backend.to_owned(), server: server.to_owned() }
    }
}

impl OfState {
    pub fn new(id: &ServerId, state: &impl Serialize) -> Self {
        let OfServer { backend, server } = id.into();
        Self { backend, server, state: Word::of(state) }
    }
}

impl OfDrain {
    pub fn new(id: &ServerId, reason: DrainReason) -> Self {
        let OfServer { backend, server } = id.into();
        Self { backend, server, reason: Word::of(&reason) }
    }
}

// === impl OfFailure ===

impl OfFailure {
    /// Names that are not configured are `other`: peers choose them, and the number of series has to stay bounded.
    pub fn of(failure: &Failure) -> Self {
        Self {
            proxy: failure.proxy.to_string(),
            backend: failure.backend_label().to_owned(),
            server: failure.server_label().to_owned(),
            phase: Word::of(&failure.phase),
            certainty: Word::of(&failure.certainty),
        }
    }
}

// === impl OfProxy ===

impl From<&str> for OfProxy {
    fn from(proxy: &str) -> Self {
        Self { proxy: proxy.to_owned() }
    }
}

// === impl Word ===

impl Word {
    /// The name of the variant. Its fields are left out.
    pub fn of(value: &impl Serialize) -> Self {
        Self(match serde_json::to_value(value) {
            Ok(Value::String(name)) => name,
            Ok(Value::Object(variant)) => {
                variant.into_iter().next().map(|(name, _)| name).unwrap_or_default()
            }
            _ => String::new(),
        })
    }
}

impl fmt::Display for Word {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl EncodeLabelValue for Word {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> fmt::Result {
        encoder.write_str(&self.0)
    }
}

// === impl LoginResult, CloseResult ===

impl EncodeLabelValue for LoginResult {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> fmt::Result {
        match self {
            Self::Ok => encoder.write_str("ok"),
            Self::Failed(kind) => encoder.write_str(&Word::of(kind).0),
        }
    }
}

impl EncodeLabelValue for CloseResult {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> fmt::Result {
        encoder.write_str(&self.0.0)
    }
}
