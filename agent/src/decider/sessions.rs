//! All sessions as JSON, for the control socket.

use std::collections::{BTreeSet, HashMap};

use agent_core::{
    InstanceId, ServerId, Time,
    plan::{Hold, HoldReason, Policy, Subject, limit_of},
    session::{Activity, ActivityRow, BackendKey, Join, Ledger},
};
use serde_json::{Value, json};

use crate::{metrics::labels::Word, status::SessionRow};

/// All sessions as JSON, oldest first, with the reason for which a due one is held.
/// Ages and limits in seconds. Replication and other internal connections are no sessions of clients.
pub(super) fn json(now: Time, ledger: &Ledger, policy: &Policy, holds: &[Hold]) -> Value {
    let server_holds = holds.iter();
    let holds: HashMap<(&InstanceId, BackendKey), HoldReason> = holds
        .iter()
        .filter_map(|hold| match &hold.subject {
            Subject::Session { instance, key, .. } => Some(((instance, *key), hold.reason)),
            Subject::Server(_) => None,
        })
        .collect();
    let floor: BTreeSet<&ServerId> = server_holds
        .filter(|hold| hold.reason == HoldReason::CapacityFloor)
        .filter_map(|hold| match &hold.subject {
            Subject::Server(server) => Some(server),
            Subject::Session { .. } => None,
        })
        .collect();
    // What is hidden from the agent hides its kind as well.
    let of_client = |row: &ActivityRow| row.client_backend || row.activity == Activity::Unknown;
    let mut sessions: Vec<_> = ledger.sessions().filter(|session| of_client(session.row)).collect();
    sessions.sort_by_key(|session| session.begin);
    let rows = sessions.into_iter().map(|session| {
        let row = session.row;
        let hold = holds.get(&(session.instance, row.key)).copied().map(|reason| match session.join {
            // A drain would help, and is not allowed.
            Join::Joined(proxy) if reason == HoldReason::DrainingOnly && floor.contains(&proxy.server) => {
                HoldReason::CapacityFloor
            }
            _ => reason,
        });
        let (server, source, joined) = match session.join {
            Join::Joined(proxy) => (Some(proxy.server.to_string()), Some(proxy.client_name()), "joined"),
            Join::NotJoined => (None, None, "not_joined"),
            Join::Disagree => (None, None, "sources_disagree"),
        };
        let (age, limit) = (now.since(session.begin), limit_of(policy, &row.key));
        SessionRow {
            instance: session.instance.to_string(),
            pid: row.key.pid,
            user: row.user.to_string(),
            application: row.application.to_string(),
            server,
            source,
            client: row.client.map(|client| client.to_string()),
            join: joined.to_owned(),
            activity: activity(row.activity).to_owned(),
            idle_s: idle(row.activity),
            hold: hold.map(|hold| Word::of(&hold).to_string()),
            explanation: hold.map(|hold| hold.explanation().to_owned()),
            age_s: age.as_secs_f64(),
            limit_s: limit.as_secs_f64(),
            due_in_s: limit.saturating_sub(policy.window()).saturating_sub(age).as_secs_f64(),
        }
    });
    json!(rows.collect::<Vec<_>>())
}

/// One word for what a session is doing.
fn activity(activity: Activity) -> &'static str {
    match activity {
        Activity::Idle(_) => "idle",
        Activity::InTransaction => "in_transaction",
        Activity::Running => "running",
        Activity::Unknown => "unknown",
    }
}

fn idle(activity: Activity) -> Option<f64> {
    match activity {
        Activity::Idle(since) => Some(since.as_secs_f64()),
        _ => None,
    }
}
