//! Instances and clusters as they are.

use super::{Answers, Part, day, each};
use crate::{
    rule::{About, Rule, Severity},
    tree::Node,
};

/// Amazon announces the end of a certificate authority long before; a rotation needs clients with the new bundle.
const CERTIFICATE_DAYS: i64 = 90;

pub(super) const RULES: &[Rule<Answers>] = &[
    Rule {
        about: About {
            id: "aws-answer",
            severity: Severity::Error,
            title: "a file is no answer of AWS",
            why: "Nothing in it is examined.",
            fix: "Save the output of the named command with `--output json`.",
            bad: "{\"Contents\": []}",
            good: "{\"DBInstances\": []}",
        },
        check: |answers, _| answers.mistakes.clone(),
    },
    Rule {
        about: About {
            id: "aws-iam-off",
            severity: Severity::Error,
            title: "IAM authentication is off or pending",
            why: "The database accepts no tokens: every login of the agent and of IAM clients is refused.",
            fix: "aws rds modify-db-instance --enable-iam-database-authentication --apply-immediately, or modify-db-cluster.",
            bad: "{\"DBInstances\": [{\"DBInstanceIdentifier\": \"a\", \"IAMDatabaseAuthenticationEnabled\": false}]}",
            good: "{\"DBInstances\": [{\"DBInstanceIdentifier\": \"a\", \"IAMDatabaseAuthenticationEnabled\": true}]}",
        },
        check: |answers, _| {
            each(&answers.databases, |part| {
                let pending = part.node.at(&["PendingModifiedValues", "IAMDatabaseAuthenticationEnabled"]);
                let flag = part.node.get("IAMDatabaseAuthenticationEnabled")?;
                if answers.cluster_of(part).is_some() {
                    // The flag of the cluster decides.
                    return None;
                }
                match (pending, flag.is_true()) {
                    (Some(pending), _) => Some((
                        part.at(pending),
                        format!("a change of IAM authentication is pending at `{}`", part.name()),
                    )),
                    (None, false) => {
                        Some((part.at(flag), format!("IAM authentication is off at `{}`", part.name())))
                    }
                    (None, true) => None,
                }
            })
        },
    },
    Rule {
        about: About {
            id: "aws-pending-reboot",
            severity: Severity::Warning,
            title: "changed parameters are not in force",
            why: "The parameter group shows values that the database does not use before its next reboot, which then \
                  comes as a surprise, with a failover.",
            fix: "Reboot in a quiet hour, or take the change back.",
            bad: "{\"DBInstances\": [{\"DBInstanceIdentifier\": \"a\", \"DBParameterGroups\": [{\"ParameterApplyStatus\": \"pending-reboot\"}]}]}",
            good: "{\"DBInstances\": [{\"DBInstanceIdentifier\": \"a\", \"DBParameterGroups\": [{\"ParameterApplyStatus\": \"in-sync\"}]}]}",
        },
        check: |answers, _| {
            each(&answers.databases, |part| {
                let status =
                    |group: &Node| group.text_at(&["ParameterApplyStatus"]).unwrap_or("in-sync").to_owned();
                let group =
                    part.node.list("DBParameterGroups").iter().find(|group| status(group) != "in-sync")?;
                Some((
                    part.at(group),
                    format!("the parameter group of `{}` is {}", part.name(), status(group)),
                ))
            })
        },
    },
    Rule {
        about: About {
            id: "aws-certificate",
            severity: Severity::Warning,
            title: "the certificate ends soon",
            why: "Clients that verify refuse an expired certificate; RDS renews some by a restart.",
            fix: "aws rds modify-db-instance --ca-certificate-identifier with a newer authority, after the clients have the \
                  current bundle.",
            bad: "{\"DBInstances\": [{\"DBInstanceIdentifier\": \"a\", \"CertificateDetails\": {\"ValidTill\": \"2001-01-01T00:00:00Z\"}}]}",
            good: "{\"DBInstances\": [{\"DBInstanceIdentifier\": \"a\", \"CertificateDetails\": {\"ValidTill\": \"2999-01-01T00:00:00Z\"}}]}",
        },
        check: |answers, setup| {
            each(&answers.databases, |part| {
                let until = part.node.at(&["CertificateDetails", "ValidTill"])?;
                let left = day(until.text()?)? - setup.today?;
                (left < CERTIFICATE_DAYS).then(|| {
                    (part.at(until), format!("the certificate of `{}` is valid for {left} days", part.name()))
                })
            })
        },
    },
    Rule {
        about: About {
            id: "aws-small-class",
            severity: Severity::Warning,
            title: "the instance is small for IAM authentication",
            why: "IAM logins need 300 to 1,000 MiB of memory beside the database's own; where it is missing they time out.",
            fix: "Use a class with at least 4 GiB of memory.",
            bad: "{\"DBInstances\": [{\"DBInstanceIdentifier\": \"a\", \"DBInstanceClass\": \"db.t4g.micro\"}]}",
            good: "{\"DBInstances\": [{\"DBInstanceIdentifier\": \"a\", \"DBInstanceClass\": \"db.r7g.large\"}]}",
        },
        check: |answers, _| {
            each(&answers.databases, |part| {
                let class = part.node.get("DBInstanceClass")?;
                let name = class.text()?;
                let small = matches!(name.rsplit('.').next(), Some("micro" | "small"));
                small.then(|| (part.at(class), format!("`{}` is a {name}", part.name())))
            })
        },
    },
    Rule {
        about: About {
            id: "aws-auth-log",
            severity: Severity::Note,
            title: "the log of IAM authentication is not exported",
            why: "To a client all refused tokens look the same. This log says why: expired, signed for another name, not \
                  allowed by the policy, throttled.",
            fix: "Enable the log export iam-db-auth-error.",
            bad: "{\"DBInstances\": [{\"DBInstanceIdentifier\": \"a\", \"Engine\": \"postgres\", \"EnabledCloudwatchLogsExports\": [\"postgresql\"]}]}",
            good: "{\"DBInstances\": [{\"DBInstanceIdentifier\": \"a\", \"Engine\": \"postgres\", \"EnabledCloudwatchLogsExports\": [\"iam-db-auth-error\"]}]}",
        },
        check: |answers, _| {
            each(&answers.databases, |part| {
                // MariaDB has no such log. Members of a cluster have their logs there.
                let here = part.node.get("Engine")?.text()? != "mariadb"
                    && (part.node.get("DBInstanceIdentifier").is_none()
                        || part.node.get("DBClusterIdentifier").is_none());
                let mut logs = part.node.list("EnabledCloudwatchLogsExports").iter();
                let missing = here && !logs.any(|log| log.text() == Some("iam-db-auth-error"));
                missing.then(|| {
                    (part.at(&part.node), format!("`{}` does not export iam-db-auth-error", part.name()))
                })
            })
        },
    },
    Rule {
        about: About {
            id: "aws-security-group",
            severity: Severity::Error,
            title: "no security group allows connections to the port of the database",
            why: "Connections of the proxy and of the agent time out.",
            fix: "Add an inbound rule for the port, from the security group of the proxy.",
            bad: "{\"DBInstances\": [{\"DBInstanceIdentifier\": \"a\", \"Endpoint\": {\"Port\": 5432}}],\n \
                  \"SecurityGroups\": [{\"GroupId\": \"sg-1\", \"IpPermissions\": [{\"IpProtocol\": \"tcp\", \"FromPort\": 3306, \"ToPort\": 3306}]}]}",
            good: "{\"DBInstances\": [{\"DBInstanceIdentifier\": \"a\", \"Endpoint\": {\"Port\": 5432}}],\n \
                   \"SecurityGroups\": [{\"GroupId\": \"sg-1\", \"IpPermissions\": [{\"IpProtocol\": \"tcp\", \"FromPort\": 5432, \"ToPort\": 5432}]}]}",
        },
        check: |answers, _| {
            each(&answers.databases, |part| {
                let port = part.node.at(&["Endpoint", "Port"]).or_else(|| part.node.get("Port"))?;
                let number = port.number()?;
                let lets_in = |permission: &Node| {
                    let end = |key: &str| permission.get(key).and_then(Node::number);
                    permission.text_at(&["IpProtocol"]) == Some("-1")
                        || end("FromPort")
                            .zip(end("ToPort"))
                            .is_some_and(|(from, to)| (from..=to).contains(&number))
                };
                let own: Vec<&str> = part
                    .node
                    .list("VpcSecurityGroups")
                    .iter()
                    .filter_map(|group| group.text_at(&["VpcSecurityGroupId"]))
                    .collect();
                let of_it = |group: &&Part| own.is_empty() || own.contains(&group.text("GroupId"));
                let groups: Vec<&Part> = answers.security_groups.iter().filter(of_it).collect();
                let open = groups.iter().any(|group| group.node.list("IpPermissions").iter().any(lets_in));
                (!groups.is_empty() && !open).then(|| {
                    (part.at(port), format!("port {number} of `{}` is in no inbound rule", part.name()))
                })
            })
        },
    },
];
