//! The IAM policy that allows the logins.

/// A login: region, the resource id of the instance or cluster (or a word in its place), and the user.
pub struct Login {
    pub region: String,
    pub resource: String,
    pub user: String,
}

/// The policy as JSON. `account` is the number of the AWS account, or a word in its place.
pub fn policy(account: &str, logins: &[Login]) -> String {
    let mut resources: Vec<String> = logins
        .iter()
        .map(|Login { region, resource, user }| {
            let partition = match region.split('-').next() {
                Some("cn") => "aws-cn",
                Some("us") if region.starts_with("us-gov") => "aws-us-gov",
                _ => "aws",
            };
            format!("        \"arn:{partition}:rds-db:{region}:{account}:dbuser:{resource}/{user}\"")
        })
        .collect();
    resources.sort();
    resources.dedup();
    format!(
        "{{\n  \"Version\": \"2012-10-17\",\n  \"Statement\": [\n    {{\n      \"Effect\": \"Allow\",\n      \
         \"Action\": \"rds-db:connect\",\n      \"Resource\": [\n{}\n      ]\n    }}\n  ]\n}}\n",
        resources.join(",\n")
    )
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
        );
        assert_eq!(text.matches("arn:").count(), 2);
        assert!(text.contains("\"arn:aws:rds-db:eu-west-1:123:dbuser:db-X/app\""));
        assert!(text.contains("\"arn:aws-cn:rds-db:cn-north-1:123:dbuser:db-X/app\""));
    }
}
