//! What the policies of IAM allow.

use super::{Answers, each};
use crate::{
    rule::{About, Rule, Severity},
    tree::Node,
};

pub(super) const RULES: &[Rule<Answers>] = &[
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
    Rule {
        about: About {
            id: "aws-policy-database",
            severity: Severity::Error,
            title: "no policy allows logins to the database",
            why: "The resource of rds-db:connect names other databases: every login is refused like a wrong password. A database \
                  that was restored or made anew has a new resource id.",
            fix: "Allow rds-db:connect for the resource id in the message: `rds-lb-agent render iam --resource`.",
            bad: "{\"DBInstances\": [{\"DBInstanceIdentifier\": \"a\", \"DbiResourceId\": \"db-ABC\"}],\n \
                  \"Statement\": [{\"Action\": \"rds-db:connect\", \"Resource\": \"arn:aws:rds-db:eu-west-1:123:dbuser:db-OTHER/app\"}]}",
            good: "{\"DBInstances\": [{\"DBInstanceIdentifier\": \"a\", \"DbiResourceId\": \"db-ABC\"}],\n \
                   \"Statement\": [{\"Action\": \"rds-db:connect\", \"Resource\": \"arn:aws:rds-db:eu-west-1:123:dbuser:db-ABC/app\"}]}",
        },
        check: |answers, _| {
            let allowed: Vec<&str> = answers
                .statements
                .iter()
                .filter(|part| connects(&part.node))
                .filter_map(|part| part.node.get("Resource").map(|one| (one, part.node.list("Resource"))))
                .flat_map(|(one, several)| several.iter().chain([one]).filter_map(Node::text))
                .collect();
            each(&answers.databases, |part| {
                // Members of a cluster are named by the resource id of the cluster.
                let id = match part.node.get("DBClusterIdentifier") {
                    Some(_) => part.node.get("DbClusterResourceId"),
                    None => part.node.get("DbiResourceId"),
                }?;
                let name = id.text()?;
                let covers = |arn: &&str| {
                    let named = arn.split(":dbuser:").nth(1).and_then(|rest| rest.split('/').next());
                    // A pattern is not judged.
                    named.is_none_or(|named| named == name || named.contains('*') || named.contains('?'))
                };
                let denied = !allowed.is_empty() && !allowed.iter().any(covers);
                denied.then(|| {
                    let what =
                        format!("no statement of the policies names `{}`, which is {name}", part.name());
                    (part.at(id), what)
                })
            })
        },
    },
];

/// Whether a statement is about the logins.
fn connects(statement: &Node) -> bool {
    let is = |node: &Node| node.text().is_some_and(|action| action.starts_with("rds-db:"));
    statement.get("Action").is_some_and(is) || statement.list("Action").iter().any(is)
}
