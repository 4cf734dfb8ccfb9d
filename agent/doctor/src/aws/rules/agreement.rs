//! What the agent's configuration has to agree with.

use super::{Answers, Part, each};
use crate::{
    position::Position,
    rule::{About, Rule, Severity},
    setup::{Instance, Setup},
    tree::Node,
};

pub(super) const RULES: &[Rule<Answers>] = &[
    Rule {
        about: About {
            id: "aws-not-found",
            severity: Severity::Error,
            title: "AWS has no instance with a configured endpoint",
            why: "Tokens are signed for this name and certificates are verified against it: no login can succeed. The instance \
                  was renamed or deleted, or it is in another region or account, or the endpoint is an alias.",
            fix: "Write the endpoint that `aws rds describe-db-instances` shows.",
            bad: "{\"DBInstances\": [{\"DBInstanceIdentifier\": \"orders-b\", \
                  \"Endpoint\": {\"Address\": \"orders-b.abc.eu-west-1.rds.amazonaws.com\", \"Port\": 5432}}]}",
            good: "{\"DBInstances\": [{\"DBInstanceIdentifier\": \"orders-a\", \
                   \"Endpoint\": {\"Address\": \"orders-a.abc.eu-west-1.rds.amazonaws.com\", \"Port\": 5432}}]}",
        },
        check: |answers, setup| {
            let missing = |configured: &&Instance| {
                configured.asked && !answers.databases.iter().any(|part| is(part, configured))
            };
            let found = setup.instances.iter().filter(missing).map(|configured| {
                let at = Position { file: configured.id.as_str().into(), line: 0 };
                (at, format!("AWS has no instance with the endpoint {}", configured.host))
            });
            found.collect()
        },
    },
    Rule {
        about: About {
            id: "aws-member-missing",
            severity: Severity::Warning,
            title: "a member of the cluster is not in the agent's configuration",
            why: "The member gets no sessions from the proxy. If a failover makes it the writer, the agent finds no writer.",
            fix: "Add it to `instances` and to the backends, or remove it from the cluster.",
            bad: "{\"DBClusters\": [{\"DBClusterIdentifier\": \"orders\", \
                  \"DBClusterMembers\": [{\"DBInstanceIdentifier\": \"orders-a\"}, {\"DBInstanceIdentifier\": \"orders-c\"}]}]}",
            good: "{\"DBClusters\": [{\"DBClusterIdentifier\": \"orders\", \
                   \"DBClusterMembers\": [{\"DBInstanceIdentifier\": \"orders-a\"}]}]}",
        },
        check: |answers, setup| {
            let configured = |member: &Node| {
                let name = member.text_at(&["DBInstanceIdentifier"]).unwrap_or_default();
                setup.instances.iter().any(|instance| instance.identifier() == name)
            };
            let clusters = answers.databases.iter().filter(|part| part.is_cluster());
            let mut found = Vec::new();
            for part in clusters {
                let (known, missing): (Vec<&Node>, Vec<&Node>) =
                    part.node.list("DBClusterMembers").iter().partition(|member| configured(member));
                // A cluster of which none is configured is another one.
                for member in missing.into_iter().filter(|_| !known.is_empty()) {
                    let name = member.text_at(&["DBInstanceIdentifier"]).unwrap_or_default();
                    let what =
                        format!("`{name}` of the cluster `{}` is not in the configuration", part.name());
                    found.push((part.at(member), what));
                }
            }
            found
        },
    },
    Rule {
        about: About {
            id: "aws-port",
            severity: Severity::Error,
            title: "the configured port is not the port of the instance",
            why: "Connections are refused, and a token signed for another port as well.",
            fix: "Write the port that the message names in `endpoint`, and in the proxy's configuration.",
            bad: "{\"DBInstances\": [{\"DBInstanceIdentifier\": \"orders-a\", \
                  \"Endpoint\": {\"Address\": \"orders-a.abc.eu-west-1.rds.amazonaws.com\", \"Port\": 5433}}]}",
            good: "{\"DBInstances\": [{\"DBInstanceIdentifier\": \"orders-a\", \
                   \"Endpoint\": {\"Address\": \"orders-a.abc.eu-west-1.rds.amazonaws.com\", \"Port\": 5432}}]}",
        },
        check: |answers, setup| {
            each(&answers.databases, |part| {
                let configured = configured(part, setup)?;
                let port = part.node.at(&["Endpoint", "Port"])?;
                let number = port.number()?;
                let differs = (number - f64::from(configured.port)).abs() > 0.5;
                differs.then(|| {
                    let what = format!(
                        "`{}` listens on port {number}; {} is configured with {}",
                        part.name(),
                        configured.id,
                        configured.port
                    );
                    (part.at(port), what)
                })
            })
        },
    },
    Rule {
        about: About {
            id: "aws-engine",
            severity: Severity::Error,
            title: "the configured engine is not the engine of the instance",
            why: "The agent speaks the wrong protocol: no login succeeds.",
            fix: "Correct `engine`.",
            bad: "{\"DBInstances\": [{\"DBInstanceIdentifier\": \"orders-a\", \"Engine\": \"mysql\", \
                  \"Endpoint\": {\"Address\": \"orders-a.abc.eu-west-1.rds.amazonaws.com\", \"Port\": 5432}}]}",
            good: "{\"DBInstances\": [{\"DBInstanceIdentifier\": \"orders-a\", \"Engine\": \"aurora-postgresql\", \
                   \"Endpoint\": {\"Address\": \"orders-a.abc.eu-west-1.rds.amazonaws.com\", \"Port\": 5432}}]}",
        },
        check: |answers, setup| {
            each(&answers.databases, |part| {
                let configured = configured(part, setup)?;
                let engine = part.node.get("Engine")?;
                let shown = engine.text()?;
                let name = match shown.strip_prefix("aurora-").unwrap_or(shown) {
                    "postgres" | "postgresql" => "postgresql",
                    other => other,
                };
                (name != configured.engine).then(|| {
                    let what = format!(
                        "`{}` is {shown}; {} is configured as {}",
                        part.name(),
                        configured.id,
                        configured.engine
                    );
                    (part.at(engine), what)
                })
            })
        },
    },
    Rule {
        about: About {
            id: "aws-auto-pause",
            severity: Severity::Warning,
            title: "the cluster may pause, and the agent's connection prevents it",
            why: "With a minimum capacity of 0 an Aurora Serverless instance pauses when it has no connections. The agent keeps \
                  one open, so the instance never pauses and is paid for. Any login attempt ends a pause.",
            fix: "Set `liveness: off` and a long `probe_interval` for this database, or a minimum capacity of 0.5.",
            bad: "{\"DBClusters\": [{\"DBClusterIdentifier\": \"orders\", \"ServerlessV2ScalingConfiguration\": {\"MinCapacity\": 0}, \
                  \"DBClusterMembers\": [{\"DBInstanceIdentifier\": \"orders-a\"}]}]}",
            good: "{\"DBClusters\": [{\"DBClusterIdentifier\": \"orders\", \"ServerlessV2ScalingConfiguration\": {\"MinCapacity\": 0.5}, \
                   \"DBClusterMembers\": [{\"DBInstanceIdentifier\": \"orders-a\"}]}]}",
        },
        check: |answers, setup| {
            each(&answers.databases, |part| {
                let least = part.node.at(&["ServerlessV2ScalingConfiguration", "MinCapacity"])?;
                let members = part.node.list("DBClusterMembers");
                let kept = members.iter().any(|member| {
                    let name = member.text_at(&["DBInstanceIdentifier"]).unwrap_or_default();
                    let of_it = |instance: &&Instance| instance.identifier() == name;
                    setup.instances.iter().filter(of_it).any(|instance| instance.keeps_connection)
                });
                (least.number()? <= 0.0 && kept)
                    .then(|| (part.at(least), format!("`{}` has a minimum capacity of 0", part.name())))
            })
        },
    },
];

/// The configured instance that an answer is about.
fn configured<'a>(part: &Part, setup: &'a Setup) -> Option<&'a Instance> {
    setup.instances.iter().find(|configured| is(part, configured))
}

fn is(part: &Part, configured: &Instance) -> bool {
    let address = part.node.text_at(&["Endpoint", "Address"]);
    address.is_some_and(|address| address.eq_ignore_ascii_case(&configured.host))
}
