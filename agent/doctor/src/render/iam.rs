//! The IAM policy that allows the logins, and what the agent reads of RDS's API.

use std::collections::BTreeSet;

/// What the agent may do beside its logins. The statements are those of `deploy/iam/policies`.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Feature {
    /// The instances of clusters.
    Topology,
    /// What `doctor --aws` reads beside them.
    Doctor,
}

impl Feature {
    fn statements(self) -> &'static str {
        let policy = match self {
            Self::Topology => include_str!("../../../../deploy/iam/policies/topology.json"),
            Self::Doctor => include_str!("../../../../deploy/iam/policies/doctor.json"),
        };
        let list = policy.split_once("\"Statement\": [").and_then(|(_, rest)| rest.rsplit_once(']'));
        list.map_or("", |(statements, _)| statements.trim_end())
    }
}

/// A login: region, the resource id of the instance or cluster (or a word in its place), and the user.
pub struct Login {
    pub region: String,
    pub resource: String,
    pub user: String,
}

/// The policy as JSON. `account` is the number of the AWS account, or a word in its place.
pub fn policy(account: &str, logins: &[Login], features: &BTreeSet<Feature>) -> String {
    let mut resources: Vec<String> = logins
        .iter()
        .map(|Login { region, resource, user }| {
            let partition = partition(region);
            format!("        \"arn:{partition}:rds-db:{region}:{account}:dbuser:{resource}/{user}\"")
        })
        .collect();
    resources.sort();
    resources.dedup();
    let regions: BTreeSet<&str> = logins.iter().map(|login| login.region.as_str()).collect();
    // Statements of the same name for several regions would not be valid.
    let mut several = regions.into_iter();
    let region = match (several.next(), several.next()) {
        (Some(only), None) => only,
        _ => "*",
    };
    let partition = partition(logins.first().map_or("", |login| &login.region));
    let mut further = String::new();
    for feature in features {
        let statements = feature.statements().replace("${partition}", partition);
        further.push(',');
        further.push_str(&statements.replace("${region}", region).replace("${account}", account));
    }
    format!(
        "{{\n  \"Version\": \"2012-10-17\",\n  \"Statement\": [\n    {{\n      \"Effect\": \"Allow\",\n      \
         \"Action\": \"rds-db:connect\",\n      \"Resource\": [\n{}\n      ]\n    }}{further}\n  ]\n}}\n",
        resources.join(",\n")
    )
}

fn partition(region: &str) -> &'static str {
    match region.split('-').next() {
        Some("cn") => "aws-cn",
        Some("us") if region.starts_with("us-gov") => "aws-us-gov",
        _ => "aws",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_login_is_one_resource_in_its_partition() {
        let login = |region: &str, user: &str| Login {
            region: region.into(),
            resource: "db-X".into(),
            user: user.into(),
        };
        let text = policy(
            "123",
            &[login("eu-west-1", "app"), login("cn-north-1", "app"), login("eu-west-1", "app")],
            &BTreeSet::new(),
        );
        assert_eq!(text.matches("arn:").count(), 2);
        assert!(text.contains("\"arn:aws:rds-db:eu-west-1:123:dbuser:db-X/app\""));
        assert!(text.contains("\"arn:aws-cn:rds-db:cn-north-1:123:dbuser:db-X/app\""));
    }
    #[test]
    fn what_features_read_follows_the_logins() {
        let login =
            |region: &str| Login { region: region.into(), resource: "db-X".into(), user: "app".into() };
        let features = BTreeSet::from([Feature::Doctor, Feature::Topology]);
        let text = policy("123", &[login("eu-west-1")], &features);
        assert!(text.contains("\"arn:aws:rds:eu-west-1:123:pg:*\""), "{text}");
        assert_eq!(text.matches("\"Effect\": \"Allow\"").count(), 5, "{text}");
        assert!(!text.contains("${"), "{text}");
        let text = policy("123", &[login("eu-west-1"), login("eu-west-2")], &features);
        assert!(text.contains("\"arn:aws:rds:*:123:pg:*\""), "{text}");
    }
}
