//! The rules.

use super::{Answers, Part};
use crate::{
    rule::{About, Found, Rule, Severity},
    tree::Node,
};

/// Amazon announces the end of a certificate authority long before; a rotation needs clients with the new bundle.
const CERTIFICATE_DAYS: i64 = 90;

/// All rules, in the order of the catalogue.
pub fn all() -> impl Iterator<Item = &'static Rule<Answers>> {
    RULES.iter().chain(PARAMETERS)
}

const RULES: &[Rule<Answers>] = &[
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
                let groups = &answers.security_groups;
                let open = groups.iter().any(|group| group.node.list("IpPermissions").iter().any(lets_in));
                (!groups.is_empty() && !open).then(|| {
                    (part.at(port), format!("port {number} of `{}` is in no inbound rule", part.name()))
                })
            })
        },
    },
    Rule {
        about: About {
            id: "aws-policy-condition",
            severity: Severity::Error,
            title: "a condition of the policy never matches",
            why: "The database itself checks the token, so the request does not come from the client's address or endpoint: \
                  aws:SourceIp, aws:SourceVpc and aws:SourceVpce never match, and every login is refused.",
            fix: "Remove the condition from the statement with rds-db:connect.",
            bad: "{\"Statement\": [{\"Action\": \"rds-db:connect\", \"Condition\": {\"IpAddress\": {\"aws:SourceIp\": \"10.0.0.0/8\"}}}]}",
            good: "{\"Statement\": [{\"Action\": \"rds-db:connect\"}]}",
        },
        check: |answers, _| {
            each(&answers.statements, |part| {
                let condition = part.node.get("Condition").filter(|_| connects(&part.node))?;
                let never = |key: &str, _: &Node| {
                    ["aws:sourceip", "aws:sourcevpc", "aws:sourcevpce"]
                        .contains(&key.to_ascii_lowercase().as_str())
                };
                let found = condition.find(&never)?;
                Some((part.at(found), "a condition on the source of the request for rds-db:connect".into()))
            })
        },
    },
    Rule {
        about: About {
            id: "aws-policy-resource",
            severity: Severity::Error,
            title: "the policy names the database by its name",
            why: "The resource of rds-db:connect has the resource id (db-... or cluster-...), which survives a rename, and \
                  not the identifier. With the identifier the policy allows nothing.",
            fix: "Use arn:aws:rds-db:REGION:ACCOUNT:dbuser:RESOURCE-ID/USER: `rds-lb-agent render iam`.",
            bad: "{\"Statement\": [{\"Action\": \"rds-db:connect\", \"Resource\": \"arn:aws:rds-db:eu-west-1:123:dbuser:orders-a/app\"}]}",
            good: "{\"Statement\": [{\"Action\": \"rds-db:connect\", \"Resource\": [\"arn:aws:rds-db:eu-west-1:123:dbuser:db-ABC/app\"]}]}",
        },
        check: |answers, _| {
            each(&answers.statements, |part| {
                let resource = part.node.get("Resource").filter(|_| connects(&part.node))?;
                let named = |node: &&Node| {
                    let id = node.text().and_then(|arn| arn.split(":dbuser:").nth(1)).unwrap_or("*");
                    !["db-", "cluster-", "prx-", "*"].iter().any(|prefix| id.starts_with(prefix))
                };
                let listed = part.node.list("Resource").iter().find(named);
                let found = listed.or_else(|| Some(resource).filter(named))?;
                Some((
                    part.at(found),
                    format!("the resource {} has no resource id", found.text().unwrap_or_default()),
                ))
            })
        },
    },
];

/// A rule on the value of a parameter.
macro_rules! parameter {
    ($id:literal, $severity:ident, $name:literal, $title:literal, $why:literal, $fix:literal, $bad:literal, $good:literal, $wrong:expr) => {
        Rule {
            about: About {
                id: $id,
                severity: Severity::$severity,
                title: $title,
                why: $why,
                fix: $fix,
                bad: concat!(
                    "{\"Parameters\": [{\"ParameterName\": \"",
                    $name,
                    "\", \"ParameterValue\": \"",
                    $bad,
                    "\"}]}"
                ),
                good: concat!(
                    "{\"Parameters\": [{\"ParameterName\": \"",
                    $name,
                    "\", \"ParameterValue\": \"",
                    $good,
                    "\"}]}"
                ),
            },
            check: |answers, _| {
                let wrong: fn(f64) -> bool = $wrong;
                each(&answers.parameters, |part| {
                    let value =
                        part.node.get("ParameterValue").filter(|_| part.text("ParameterName") == $name)?;
                    let shown = value
                        .text()
                        .map_or_else(|| value.number().unwrap_or_default().to_string(), str::to_owned);
                    let number = match shown.to_ascii_lowercase().as_str() {
                        "on" | "true" => 1.0,
                        "off" | "false" => 0.0,
                        // A formula is not judged.
                        text => text.parse().ok()?,
                    };
                    wrong(number).then(|| (part.at(value), format!("{} is {shown}", $name)))
                })
            },
        }
    };
}

const PARAMETERS: &[Rule<Answers>] = &[
    parameter!(
        "aws-max-connect-errors",
        Warning,
        "max_connect_errors",
        "few failed connections block the proxy",
        "The default of 100 connections that end before their login blocks the address of the proxy, and with it all clients \
         behind it.",
        "Set max_connect_errors to 1000000.",
        "100",
        "1000000",
        |value| value < 10_000.0
    ),
    parameter!(
        "aws-force-ssl",
        Warning,
        "rds.force_ssl",
        "PostgreSQL accepts connections without TLS",
        "A client that answers the request for its password in the clear has given its token away.",
        "Set rds.force_ssl to 1.",
        "0",
        "1",
        |value| value == 0.0
    ),
    parameter!(
        "aws-secure-transport",
        Warning,
        "require_secure_transport",
        "MySQL or MariaDB accepts connections without TLS",
        "The server asks for the token in the clear as well, and a client that answers has given it away.",
        "Set require_secure_transport to ON.",
        "OFF",
        "ON",
        |value| value == 0.0
    ),
    parameter!(
        "aws-wait-timeout",
        Warning,
        "wait_timeout",
        "the database ends idle sessions of pools",
        "A pool learns of it only when it uses the connection, and its client gets the error.",
        "Set wait_timeout to 28800, and limit the age of sessions with the agent.",
        "60",
        "28800",
        |value| value < 900.0
    ),
    parameter!(
        "aws-interactive-timeout",
        Note,
        "interactive_timeout",
        "the database ends idle interactive sessions soon",
        "In Aurora MySQL the smaller of wait_timeout and interactive_timeout holds for every session.",
        "Set interactive_timeout to 28800.",
        "60",
        "28800",
        |value| value < 900.0
    ),
    parameter!(
        "aws-idle-in-transaction",
        Warning,
        "idle_in_transaction_session_timeout",
        "transactions may stay open without a limit",
        "A session that forgot its transaction is never retired, and keeps its server from being drained.",
        "Set idle_in_transaction_session_timeout to 300000 (5 min), above the pauses of your clients.",
        "0",
        "300000",
        |value| value == 0.0
    ),
    parameter!(
        "aws-performance-schema",
        Warning,
        "performance_schema",
        "open transactions cannot be seen",
        "Without performance_schema the agent cannot tell whether a session is in a transaction, and holds every session.",
        "Set performance_schema to 1, or choose `open_transactions: innodb_trx`.",
        "0",
        "1",
        |value| value == 0.0
    ),
    parameter!(
        "aws-log-connections",
        Note,
        "log_connections",
        "logins are not logged",
        "Without log_connections the log of the database does not show which clients a retirement or a failover brought \
         back.",
        "Set log_connections to 1.",
        "0",
        "1",
        |value| value == 0.0
    ),
    parameter!(
        "aws-keepalive",
        Note,
        "tcp_keepalives_idle",
        "PostgreSQL notices dead clients late",
        "RDS's default of 300 s is close to the 350 s after which a load balancer or a NAT gateway of AWS forgets a \
         connection.",
        "Set tcp_keepalives_idle to 60 and tcp_keepalives_interval to 10.",
        "300",
        "60",
        |value| !(1.0..=120.0).contains(&value)
    ),
];

fn each(parts: &[Part], of: impl Fn(&Part) -> Option<Found>) -> Vec<Found> {
    parts.iter().filter_map(of).collect()
}

/// Whether a statement is about the logins.
fn connects(statement: &Node) -> bool {
    let is = |node: &Node| node.text().is_some_and(|action| action.starts_with("rds-db:"));
    statement.get("Action").is_some_and(is) || statement.list("Action").iter().any(is)
}

/// The days since 1970 of a date at the beginning of a text, by the Gregorian calendar.
fn day(text: &str) -> Option<i64> {
    let mut parts = text.get(..10)?.split('-').map(str::parse::<i64>);
    let (year, month, day) = (parts.next()?.ok()?, parts.next()?.ok()?, parts.next()?.ok()?);
    // A year that begins in March has its leap day at the end.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    Some(
        365 * year + year.div_euclid(4) - year.div_euclid(100)
            + year.div_euclid(400)
            + (153 * month + 2) / 5
            + day
            - 719_469,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_counted_from_1970() {
        for (text, expected) in
            [("1970-01-01", 0), ("2000-03-01T00:00:00Z", 11_017), ("2024-02-29", 19_782), ("1969-12-31", -1)]
        {
            assert_eq!(day(text), Some(expected), "{text}");
        }
        assert_eq!(day("soon"), None);
    }
}
