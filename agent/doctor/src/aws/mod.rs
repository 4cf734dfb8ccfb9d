//! What AWS reports about instances, parameter groups, security groups and policies: the JSON that `aws rds
//! describe-db-instances`, `describe-db-clusters`, `describe-db-parameters`, `aws ec2 describe-security-groups` and
//! `aws iam get-policy-version` print. Nothing is asked here.

mod rules;

use std::sync::Arc;

pub use rules::all as rules;

use crate::{
    finding::Finding,
    position::Position,
    rule::{Found, Rule},
    setup::Setup,
    source::Source,
    tree::{self, Node},
};

/// A part of an answer, and the file that it is in.
#[derive(Clone, Debug)]
pub struct Part {
    file: Arc<str>,
    node: Node,
}

/// The parts of all answers.
#[derive(Clone, Debug, Default)]
pub struct Answers {
    /// Instances and clusters.
    pub databases: Vec<Part>,
    pub parameters: Vec<Part>,
    pub security_groups: Vec<Part>,
    /// Statements of policies.
    pub statements: Vec<Part>,
    pub mistakes: Vec<Found>,
}

impl Part {
    fn at(&self, node: &Node) -> Position {
        Position { file: self.file.clone(), line: node.line }
    }

    fn text(&self, key: &str) -> &str {
        self.node.text_at(&[key]).unwrap_or_default()
    }

    /// The identifier of an instance or a cluster.
    fn name(&self) -> &str {
        let cluster = self.text("DBClusterIdentifier");
        if self.node.get("DBInstanceIdentifier").is_some() {
            self.text("DBInstanceIdentifier")
        } else {
            cluster
        }
    }
}

/// The findings of all rules.
pub fn check(sources: &[Source], setup: &Setup) -> Vec<Finding> {
    let answers = read(sources);
    let found = |rule: &Rule<Answers>| {
        let about = rule.about;
        (rule.check)(&answers, setup).into_iter().map(move |found| Finding::new(&about, found))
    };
    rules().flat_map(found).collect()
}

fn read(sources: &[Source]) -> Answers {
    let mut answers = Answers::default();
    for source in sources {
        let file: Arc<str> = source.name.as_str().into();
        let root = match tree::parse(&source.text) {
            Ok(root) => root,
            Err((line, what)) => {
                answers.mistakes.push((Position { file, line }, what));
                continue;
            }
        };
        let parts = |node: &Node, key: &str| -> Vec<Part> {
            node.list(key).iter().map(|node| Part { file: file.clone(), node: node.clone() }).collect()
        };
        let document = root.at(&["PolicyVersion", "Document"]).unwrap_or(&root);
        answers.databases.extend(parts(&root, "DBInstances"));
        answers.databases.extend(parts(&root, "DBClusters"));
        answers.parameters.extend(parts(&root, "Parameters"));
        answers.security_groups.extend(parts(&root, "SecurityGroups"));
        answers.statements.extend(parts(document, "Statement"));
        let nothing = ["DBInstances", "DBClusters", "Parameters", "SecurityGroups"]
            .iter()
            .all(|key| root.get(key).is_none());
        if nothing && document.get("Statement").is_none() {
            let what = "this is no answer of describe-db-instances, describe-db-clusters, describe-db-parameters, \
                        describe-security-groups or get-policy-version";
            answers.mistakes.push((Position { file, line: 0 }, what.into()));
        }
    }
    answers
}
