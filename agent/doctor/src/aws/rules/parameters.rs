//! Parameter groups.

use super::{Answers, Part, each};
use crate::{
    rule::{About, Rule, Severity},
    tree::Node,
};

/// A rule on the value of a parameter. The last argument is the value that holds where the group lists the parameter
/// without a value.
macro_rules! parameter {
    ($id:literal, $severity:ident, $name:literal, $title:literal, $why:literal, $fix:literal, $bad:literal, $good:literal, $wrong:expr, $default:expr) => {
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
                let default: Option<&str> = $default;
                each(&answers.parameters, |part| {
                    if part.text("ParameterName") != $name || answers.overridden(part) {
                        return None;
                    }
                    if let Some(value) = part.node.get("ParameterValue") {
                        let (number, shown) = number(value)?;
                        return wrong(number).then(|| (part.at(value), format!("{} is {shown}", $name)));
                    }
                    let default = default?;
                    let what = format!("{} is not set, and the default is {default}", $name);
                    Some((part.at(&part.node), what))
                })
            },
        }
    };
}

pub(super) const RULES: &[Rule<Answers>] = &[
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
        |value| value < 10_000.0,
        Some("100")
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
        |value| value == 0.0,
        None
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
        |value| value == 0.0,
        Some("OFF")
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
        |value| value < 900.0,
        None
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
        |value| value < 900.0,
        None
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
        |value| value == 0.0,
        None
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
        |value| value == 0.0,
        Some("0")
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
        |value| !(1.0..=120.0).contains(&value),
        Some("300")
    ),
    parameter!(
        "aws-connection-check",
        Note,
        "client_connection_check_interval",
        "PostgreSQL runs queries of clients that are gone",
        "With 0 a query goes on after its client has disappeared: after a failover of the proxy or of clients the old queries \
         hold locks and slots until they end.",
        "Set client_connection_check_interval to 10000 (10 s).",
        "0",
        "10000",
        |value| value == 0.0,
        Some("0")
    ),
    parameter!(
        "aws-user-timeout",
        Note,
        "tcp_user_timeout",
        "PostgreSQL waits long for clients that acknowledge nothing",
        "With 0 the operating system decides, after about 15 minutes: until then the sessions of a host that vanished hold \
         their slots.",
        "Set tcp_user_timeout to 30000 (30 s).",
        "0",
        "30000",
        |value| value == 0.0,
        Some("0")
    ),
    parameter!(
        "aws-reserved-connections",
        Note,
        "reserved_connections",
        "the agent has no connection slot of its own",
        "When clients hold all slots, the agent cannot log in either: its sessions cannot be retired. PostgreSQL 16 and later \
         can reserve slots.",
        "Set reserved_connections to 5, and GRANT pg_use_reserved_connections to the agent's user.",
        "0",
        "5",
        |value| value == 0.0,
        Some("0")
    ),
    Rule {
        about: About {
            id: "aws-performance-schema",
            severity: Severity::Warning,
            title: "open transactions cannot be seen",
            why: "Without performance_schema the agent cannot tell whether a session is in a transaction, and holds every session.",
            fix: "Set performance_schema to 1, or enable Performance Insights, which turns it on; or choose \
                  `open_transactions: innodb_trx`.",
            bad: "{\"Parameters\": [{\"ParameterName\": \"performance_schema\", \"ParameterValue\": \"0\", \"Source\": \"system\"}]}",
            good: "{\"DBInstances\": [{\"DBInstanceIdentifier\": \"a\", \"PerformanceInsightsEnabled\": true}],\n \
                   \"Parameters\": [{\"ParameterName\": \"performance_schema\", \"ParameterValue\": \"0\", \"Source\": \"system\"}]}",
        },
        check: |answers, _| {
            each(&answers.parameters, |part| {
                if part.text("ParameterName") != "performance_schema" {
                    return None;
                }
                let value = part.node.get("ParameterValue")?;
                let (number, shown) = number(value)?;
                // Unless an operator has set it, Performance Insights manages it: the value shown stays 0.
                let managed = part.text("Source") != "user"
                    && answers.databases.iter().any(|database| {
                        let insights = database.node.get("PerformanceInsightsEnabled");
                        insights.is_some_and(Node::is_true) && uses(database, part)
                    });
                (number == 0.0 && !managed)
                    .then(|| (part.at(value), format!("performance_schema is {shown}")))
            })
        },
    },
    Rule {
        about: About {
            id: "aws-max-connections",
            severity: Severity::Warning,
            title: "the proxy admits more connections than the database",
            why: "The database refuses the rest, after their TLS handshake: to clients it looks like an outage, and the agent \
                  cannot log in either.",
            fix: "Set maxconn on the servers of the proxy, or in its global section, below max_connections; or raise max_connections.",
            bad: "{\"Parameters\": [{\"ParameterName\": \"max_connections\", \"ParameterValue\": \"500\"}]}",
            good: "{\"Parameters\": [{\"ParameterName\": \"max_connections\", \"ParameterValue\": \"5000\"}]}",
        },
        check: |answers, setup| {
            each(&answers.parameters, |part| {
                let admitted = setup.proxy_connections?;
                let value = part
                    .node
                    .get("ParameterValue")
                    .filter(|_| part.text("ParameterName") == "max_connections")?;
                let text = value.text().map(str::to_owned).or_else(|| Some(value.number()?.to_string()))?;
                // Of several instances with this group, the smallest.
                let classes = answers
                    .databases
                    .iter()
                    .filter(|database| uses(database, part))
                    .filter_map(|database| class_bytes(database.text("DBInstanceClass")));
                let most = connections(&text, classes.min_by(f64::total_cmp))?;
                (most < admitted as f64).then(|| {
                    let what = format!("max_connections is {most:.0} ({text}); HAProxy admits {admitted}");
                    (part.at(value), what)
                })
            })
        },
    },
];

/// The number of a parameter's value, and the value as it is shown. A formula is no number.
fn number(value: &Node) -> Option<(f64, String)> {
    let shown = value.text().map_or_else(|| value.number().unwrap_or_default().to_string(), str::to_owned);
    let number = match shown.to_ascii_lowercase().as_str() {
        "on" | "true" => 1.0,
        "off" | "false" => 0.0,
        text => text.parse().ok()?,
    };
    Some((number, shown))
}

/// Whether a database uses the parameter group of a parameter, as far as that is known.
fn uses(database: &Part, parameter: &Part) -> bool {
    let Some(group) = &parameter.group else { return true };
    let names = |node: &Node| node.text_at(&["DBParameterGroupName"]) == Some(&group.name);
    database.node.list("DBParameterGroups").iter().any(names)
        || database.text("DBClusterParameterGroup") == group.name
}

/// `max_connections` of an instance with this memory, by the formulas of AWS's default groups.
fn connections(text: &str, bytes: Option<f64>) -> Option<f64> {
    let text: String = text.chars().filter(|c| !c.is_whitespace()).collect();
    if let Some(terms) = text.strip_prefix("LEAST(").and_then(|rest| rest.strip_suffix(')')) {
        let terms: Option<Vec<f64>> = terms.split(',').map(|term| connections(term, bytes)).collect();
        return terms?.into_iter().min_by(f64::total_cmp);
    }
    match text.strip_prefix("{DBInstanceClassMemory/").and_then(|rest| rest.strip_suffix('}')) {
        Some(divisor) => Some((bytes? / divisor.parse::<f64>().ok().filter(|by| *by > 0.0)?).floor()),
        None => text.parse().ok(),
    }
}

/// The memory of the classes in common use. RDS keeps some of it back, so the result is an upper bound.
fn class_bytes(class: &str) -> Option<f64> {
    let mut parts = class.strip_prefix("db.")?.split('.');
    let (family, size) = (parts.next()?, parts.next()?);
    let large = match family.get(..1)? {
        "r" => 16.0,
        "m" | "t" => 8.0,
        "c" => 4.0,
        _ => return None,
    };
    let times = match size {
        "micro" => 0.125,
        "small" => 0.25,
        "medium" => 0.5,
        "large" => 1.0,
        "xlarge" => 2.0,
        size => 2.0 * size.strip_suffix("xlarge")?.parse::<f64>().ok()?,
    };
    Some(large * times * f64::from(1 << 30))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formulas_of_default_groups_are_computed() {
        let memory = class_bytes("db.r7g.2xlarge");
        assert_eq!(memory, Some(64.0 * 1_073_741_824.0));
        assert_eq!(connections("LEAST({DBInstanceClassMemory/9531392}, 5000)", memory), Some(5000.0));
        assert_eq!(
            connections("{DBInstanceClassMemory/12582880}", class_bytes("db.t4g.medium")),
            Some(341.0)
        );
        assert_eq!(connections("1000", None), Some(1000.0));
        for (text, memory) in [("{DBInstanceClassMemory/12582880}", None), ("GREATEST({log(1)},2)", memory)] {
            assert_eq!(connections(text, memory), None, "{text}");
        }
        assert_eq!(class_bytes("db.serverless"), None);
    }
}
