//! What is about to happen to instances and clusters, or has just happened.

use super::{Answers, Part, each};
use crate::{
    rule::{About, Rule, Severity},
    tree::Node,
};

/// States in which an instance or a cluster takes no connections, and that do not end by themselves soon.
const UNUSABLE: [&str; 13] = [
    "deleting",
    "failed",
    "inaccessible-encryption-credentials",
    "inaccessible-encryption-credentials-recoverable",
    "incompatible-create",
    "incompatible-credentials",
    "incompatible-network",
    "incompatible-option-group",
    "incompatible-parameters",
    "incompatible-restore",
    "restore-error",
    "stopped",
    "stopping",
];

/// Changes that matter to clients, and what they do.
const CHANGES: [(&str, &str); 6] = [
    ("DBInstanceIdentifier", "a rename, which changes the endpoint"),
    ("DBClusterIdentifier", "a rename, which changes the endpoints"),
    ("Port", "another port"),
    ("CACertificateIdentifier", "another certificate authority, by a restart for some engines"),
    ("EngineVersion", "another version, by a restart"),
    ("DBInstanceClass", "another class, by a restart or a failover"),
];

/// The categories of events that explain lost sessions.
const CATEGORIES: [&str; 5] = ["availability", "failover", "failure", "low storage", "recovery"];

pub(super) const RULES: &[Rule<Answers>] = &[
    Rule {
        about: About {
            id: "aws-status",
            severity: Severity::Error,
            title: "an instance or a cluster takes no connections",
            why: "In this state every login fails or times out, until an operator or AWS acts.",
            fix: "Follow the events of the instance: `aws rds describe-events --source-type db-instance --source-identifier`.",
            bad: "{\"DBInstances\": [{\"DBInstanceIdentifier\": \"a\", \"DBInstanceStatus\": \"stopped\"}]}",
            good: "{\"DBInstances\": [{\"DBInstanceIdentifier\": \"a\", \"DBInstanceStatus\": \"available\"}]}",
        },
        check: |answers, _| {
            each(&answers.databases, |part| {
                let status = part.node.get("DBInstanceStatus").or_else(|| part.node.get("Status"))?;
                let word = status.text().filter(|word| UNUSABLE.contains(word))?;
                Some((part.at(status), format!("`{}` is {word}", part.name())))
            })
        },
    },
    Rule {
        about: About {
            id: "aws-maintenance",
            severity: Severity::Warning,
            title: "AWS is going to maintain an instance or a cluster",
            why: "Most of these actions restart the database or fail over: all sessions are closed at that time.",
            fix: "Choose the time yourself: `rds-lb-agent drain --until-empty`, then `aws rds apply-pending-maintenance-action`, \
                  readers first.",
            bad: "{\"PendingMaintenanceActions\": [{\"ResourceIdentifier\": \"arn:aws:rds:eu-west-1:123:db:a\", \
                  \"PendingMaintenanceActionDetails\": [{\"Action\": \"system-update\", \"CurrentApplyDate\": \"2026-12-01T03:00:00Z\"}]}]}",
            good: "{\"PendingMaintenanceActions\": [{\"ResourceIdentifier\": \"arn:aws:rds:eu-west-1:123:db:a\", \
                   \"PendingMaintenanceActionDetails\": [{\"Action\": \"system-update\"}]}]}",
        },
        check: |answers, _| {
            let mut found = Vec::new();
            for part in &answers.maintenance {
                for action in part.node.list("PendingMaintenanceActionDetails") {
                    // Without a date it waits until an operator applies it.
                    let dates = ["ForcedApplyDate", "CurrentApplyDate", "AutoAppliedAfterDate"];
                    let date = dates.iter().find_map(|key| Some((*key, action.text_at(&[key])?)));
                    let Some((key, date)) = date else { continue };
                    let when = match key {
                        "ForcedApplyDate" => "at the latest, in or out of its maintenance window",
                        "CurrentApplyDate" => "in its maintenance window",
                        _ => "or later, in its maintenance window",
                    };
                    let name = action.text_at(&["Action"]).unwrap_or("maintenance");
                    let what =
                        format!("{name} of `{}` on {date} {when}", short(part.text("ResourceIdentifier")));
                    found.push((part.at(action), what));
                }
            }
            found
        },
    },
    Rule {
        about: About {
            id: "aws-pending-change",
            severity: Severity::Warning,
            title: "a change of an instance or a cluster is pending",
            why: "It is made in the next maintenance window. A rename or another port needs the configurations of the agent, the \
                  proxy and the clients to change at the same time; the other changes restart the database.",
            fix: "Make the change at a time of your choice with --apply-immediately, or take it back.",
            bad: "{\"DBInstances\": [{\"DBInstanceIdentifier\": \"a\", \"PendingModifiedValues\": {\"Port\": 5433}}]}",
            good: "{\"DBInstances\": [{\"DBInstanceIdentifier\": \"a\", \"PendingModifiedValues\": {}}]}",
        },
        check: |answers, _| {
            let mut found = Vec::new();
            for part in &answers.databases {
                let Some(pending) = part.node.get("PendingModifiedValues") else { continue };
                for (key, effect) in CHANGES {
                    let Some(value) = pending.get(key) else { continue };
                    let shown = value.text().map(str::to_owned).or_else(|| Some(value.number()?.to_string()));
                    let Some(shown) = shown else { continue };
                    found.push((
                        part.at(value),
                        format!("{key} {shown} is pending at `{}`: {effect}", part.name()),
                    ));
                }
            }
            found
        },
    },
    Rule {
        about: About {
            id: "aws-blue-green",
            severity: Severity::Note,
            title: "there is a blue/green deployment",
            why: "At the switchover the endpoints move to the green instances. Users, grants and functions that were made after \
                  the deployment was created are missing there, also those of the agent.",
            fix: "Before the switchover, run the agent's grants on the green writer: `rds-lb-agent render grants`. Do not configure \
                  names with `-green-`.",
            bad: "{\"BlueGreenDeployments\": [{\"BlueGreenDeploymentName\": \"upgrade\", \"Status\": \"AVAILABLE\"}]}",
            good: "{\"BlueGreenDeployments\": [{\"BlueGreenDeploymentName\": \"upgrade\", \"Status\": \"SWITCHOVER_COMPLETED\"}]}",
        },
        check: |answers, _| {
            each(&answers.deployments, |part| {
                let status = part.node.get("Status")?;
                let word = status.text()?;
                let over = matches!(word, "SWITCHOVER_COMPLETED" | "DELETING" | "INVALID_CONFIGURATION");
                (!over).then(|| {
                    let name = part.text("BlueGreenDeploymentName");
                    (part.at(status), format!("the deployment `{name}` is {word}"))
                })
            })
        },
    },
    Rule {
        about: About {
            id: "aws-events",
            severity: Severity::Note,
            title: "an instance failed over, restarted, failed or recovered",
            why: "It explains sessions that were lost at that time.",
            fix: "Compare the time with the agent's log and `rds-lb-agent explain --history`.",
            bad: "{\"Events\": [{\"SourceIdentifier\": \"a\", \"Date\": \"2026-11-28T03:00:00Z\", \"Message\": \"DB instance restarted\", \
                  \"EventCategories\": [\"availability\"]}]}",
            good: "{\"Events\": [{\"SourceIdentifier\": \"a\", \"Date\": \"2026-11-28T03:00:00Z\", \"Message\": \"Backing up DB instance\", \
                   \"EventCategories\": [\"backup\"]}]}",
        },
        check: |answers, _| {
            each(&answers.events, |part| {
                let of = |category: &Node| category.text().is_some_and(|word| CATEGORIES.contains(&word));
                part.node.list("EventCategories").iter().any(of).then(|| {
                    let [name, date, message] =
                        ["SourceIdentifier", "Date", "Message"].map(|key| Part::text(part, key));
                    (part.at(&part.node), format!("`{name}` at {date}: {message}"))
                })
            })
        },
    },
];

/// The identifier in an ARN.
fn short(arn: &str) -> &str {
    arn.rsplit(':').next().unwrap_or(arn)
}
