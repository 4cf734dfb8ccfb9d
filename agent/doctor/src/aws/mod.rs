//! What AWS reports about instances, parameter groups, security groups and policies: the JSON that `aws rds
//! describe-db-instances`, `describe-db-clusters`, `describe-db-parameters`, `describe-pending-maintenance-actions`,
//! `describe-events`, `describe-blue-green-deployments`, `aws ec2 describe-security-groups` and
//! `aws iam get-policy-version` print, from files or just fetched. AWS is not asked here.

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

/// A part of an answer, and where it is from.
#[derive(Clone, Debug)]
pub struct Part {
    origin: Origin,
    node: Node,
    /// Of a parameter, if the answer names it.
    group: Option<Group>,
}

#[derive(Clone, Debug)]
struct Origin {
    /// A file, or the region that was asked.
    name: Arc<str>,
    /// Whether it has lines that an operator can look at.
    lines: bool,
}

/// A parameter group.
#[derive(Clone, Debug)]
struct Group {
    name: String,
    of_cluster: bool,
}

/// The parts of all answers.
#[derive(Clone, Debug, Default)]
pub struct Answers {
    /// Instances and clusters.
    pub databases: Vec<Part>,
    pub parameters: Vec<Part>,
    /// Pending maintenance, by resource.
    pub maintenance: Vec<Part>,
    pub events: Vec<Part>,
    /// Blue/green deployments.
    pub deployments: Vec<Part>,
    pub security_groups: Vec<Part>,
    /// Statements of policies.
    pub statements: Vec<Part>,
    pub mistakes: Vec<Found>,
}

impl Part {
    fn at(&self, node: &Node) -> Position {
        let line = if self.origin.lines { node.line } else { 0 };
        Position { file: self.origin.name.clone(), line }
    }

    fn is_cluster(&self) -> bool {
        self.node.get("DBClusterIdentifier").is_some() && self.node.get("DBInstanceIdentifier").is_none()
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

impl Answers {
    /// The cluster of an instance, if it is among the answers.
    fn cluster_of(&self, instance: &Part) -> Option<&Part> {
        if instance.is_cluster() {
            return None;
        }
        let name = instance.node.text_at(&["DBClusterIdentifier"])?;
        self.databases.iter().find(|part| part.is_cluster() && part.name() == name)
    }

    /// Whether a parameter of a cluster's group has a value in a group of instances, which takes precedence.
    fn overridden(&self, parameter: &Part) -> bool {
        let of_cluster = |part: &Part| part.group.as_ref().is_some_and(|group| group.of_cluster);
        let name = parameter.text("ParameterName");
        of_cluster(parameter)
            && self.parameters.iter().any(|part| {
                let own = part.text("ParameterName") == name && !of_cluster(part);
                own && part.node.get("ParameterValue").is_some()
            })
    }
}

/// The findings of all rules on recorded answers, and on answers that were just fetched.
pub fn check(files: &[Source], fetched: &[Source], setup: &Setup) -> Vec<Finding> {
    let mut answers = Answers::default();
    for source in files {
        read(source, true, &mut answers);
    }
    for source in fetched {
        read(source, false, &mut answers);
    }
    let found = |rule: &Rule<Answers>| {
        let about = rule.about;
        (rule.check)(&answers, setup).into_iter().map(move |found| Finding::new(&about, found))
    };
    rules().flat_map(found).collect()
}

fn read(source: &Source, lines: bool, answers: &mut Answers) {
    let origin = Origin { name: source.name.as_str().into(), lines };
    let root = match tree::parse(&source.text) {
        Ok(root) => root,
        Err((line, what)) => {
            answers.mistakes.push((Position { file: origin.name, line }, what));
            return;
        }
    };
    let group = ["DBParameterGroupName", "DBClusterParameterGroupName"].into_iter().find_map(|key| {
        let name = root.text_at(&[key])?.to_owned();
        Some(Group { name, of_cluster: key.starts_with("DBCluster") })
    });
    let document = root.at(&["PolicyVersion", "Document"]).unwrap_or(&root);
    let mut known = false;
    let mut parts = |node: &Node, key: &str| -> Vec<Part> {
        known |= node.get(key).is_some();
        let part = |node: &Node| Part { origin: origin.clone(), node: node.clone(), group: group.clone() };
        node.list(key).iter().map(part).collect()
    };
    answers.databases.extend(parts(&root, "DBInstances"));
    answers.databases.extend(parts(&root, "DBClusters"));
    answers.parameters.extend(parts(&root, "Parameters"));
    answers.maintenance.extend(parts(&root, "PendingMaintenanceActions"));
    answers.events.extend(parts(&root, "Events"));
    answers.deployments.extend(parts(&root, "BlueGreenDeployments"));
    answers.security_groups.extend(parts(&root, "SecurityGroups"));
    answers.statements.extend(parts(document, "Statement"));
    if !known {
        let what = "this is no answer of describe-db-instances, describe-db-clusters, describe-db-parameters, \
                    describe-pending-maintenance-actions, describe-events, describe-blue-green-deployments, \
                    describe-security-groups or get-policy-version";
        answers.mistakes.push((Position { file: origin.name.clone(), line: 0 }, what.into()));
    }
}
