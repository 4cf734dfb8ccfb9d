//! `doctor --aws` against RDS's API.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test")]

use std::{collections::BTreeSet, fs, path::PathBuf, process::Command};

use integration_tests::{
    rds_api::{RdsApi, error, result},
    scene::Agent,
};
use serde_json::Value;
use tempfile::TempDir;

/// The configuration of an agent, and the environment in which its commands ask the API.
struct Doctor {
    folder: TempDir,
    environment: Vec<(String, String)>,
}

struct Report {
    code: i32,
    rules: BTreeSet<String>,
    skipped: Vec<String>,
    text: String,
}

impl Doctor {
    /// The instances have the names of moto.
    fn new(api: &RdsApi, engine: &str, instances: &[(&str, u16)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let instances: String = instances
            .iter()
            .map(|(name, port)| {
                let endpoint = format!("{name}.aaaaaaaaaa.eu-west-1.rds.amazonaws.com:{port}");
                format!("      - {{name: {name}, endpoint: '{endpoint}'}}\n")
            })
            .collect();
        let text = format!(
            "databases:\n  - name: orders\n    engine: {engine}\n    user: lb_agent\n    instances:\n{instances}"
        );
        fs::write(folder.path().join("agent.yaml"), text).unwrap();
        Self { folder, environment: api.environment() }
    }

    fn config(&self) -> PathBuf {
        self.folder.path().join("agent.yaml")
    }

    async fn run(&self, more: &[&str]) -> Report {
        let mut doctor = Command::new(Agent::binary());
        doctor
            .env_clear()
            .envs(self.environment.clone())
            .args(["doctor", "--output", "json", "--aws", "--config"])
            .arg(self.config())
            .args(more);
        let output = tokio::task::spawn_blocking(move || doctor.output().unwrap()).await.unwrap();
        let [text, complaint] = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap());
        assert!(!text.contains("a-made-up-secret"), "{text}");
        let report: Value =
            serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}{complaint}"));
        let words = |key: &str, field: Option<&str>| -> Vec<String> {
            let values = report[key].as_array().unwrap().iter();
            values
                .map(|value| field.map_or(value, |field| &value[field]).as_str().unwrap().to_owned())
                .collect()
        };
        Report {
            code: output.status.code().unwrap(),
            rules: words("findings", Some("rule")).into_iter().collect(),
            skipped: words("skipped", None),
            text,
        }
    }
}

/// A cluster `orders` with these instances.
async fn cluster(api: &RdsApi, instances: &[&str], more: &[(&str, &str)]) {
    let of_cluster = [
        ("DBClusterIdentifier", "orders"),
        ("Engine", "aurora-postgresql"),
        ("MasterUsername", "root"),
        ("MasterUserPassword", "made-up-password"),
    ];
    api.call("CreateDBCluster", &[&of_cluster[..], more].concat()).await.unwrap();
    for name in instances {
        let of_instance = [
            ("DBInstanceIdentifier", *name),
            ("DBClusterIdentifier", "orders"),
            ("Engine", "aurora-postgresql"),
            ("DBInstanceClass", "db.r7g.large"),
        ];
        api.call("CreateDBInstance", &of_instance).await.unwrap();
    }
}

const EXPORTS: [(&str, &str); 2] = [
    ("EnableIAMDatabaseAuthentication", "true"),
    ("EnableCloudwatchLogsExports.member.1", "iam-db-auth-error"),
];

/// The default groups of AWS are not in moto.
fn parameters(api: &RdsApi, action: &str, entries: &[(&str, &str)]) {
    let entries: String = entries
        .iter()
        .map(|(name, value)| {
            format!(
                "<Parameter><ParameterName>{name}</ParameterName><ParameterValue>{value}</ParameterValue>\
                 <Source>user</Source></Parameter>"
            )
        })
        .collect();
    let text = result(action, &format!("<Parameters>{entries}</Parameters>"));
    api.answer(action, move |_| (200, text.clone()));
}

#[tokio::test]
async fn a_sound_cluster_has_no_findings_and_planted_mistakes_are_found() {
    let api = RdsApi::start().await.unwrap();
    cluster(&api, &["orders-a", "orders-b"], &EXPORTS).await;
    parameters(&api, "DescribeDBParameters", &[("log_connections", "1")]);
    parameters(&api, "DescribeDBClusterParameters", &[("rds.force_ssl", "1")]);
    let sound = Doctor::new(&api, "postgresql", &[("orders-a", 5432), ("orders-b", 5432)]);
    let report = sound.run(&["--strict"]).await;
    assert_eq!((report.code, report.rules.len(), report.skipped.len()), (0, 0, 0), "{}", report.text);

    // Another engine, port and member, a name that is not there, an instance without IAM, and one of each kind of answer.
    let wrong = Doctor::new(&api, "mysql", &[("orders-a", 5433), ("orders-c", 5432), ("orders-d", 3306)]);
    parameters(&api, "DescribeDBParameters", &[("idle_in_transaction_session_timeout", "0")]);
    parameters(&api, "DescribeDBClusterParameters", &[("rds.force_ssl", "0")]);
    let single = [
        ("DBInstanceIdentifier", "orders-d"),
        ("Engine", "mysql"),
        ("DBInstanceClass", "db.t4g.micro"),
        ("AllocatedStorage", "20"),
        ("MasterUsername", "root"),
        ("MasterUserPassword", "made-up-password"),
    ];
    api.call("CreateDBInstance", &single).await.unwrap();
    let pending = "<PendingMaintenanceActions><ResourcePendingMaintenanceActions>\
        <ResourceIdentifier>arn:aws:rds:eu-west-1:123456789012:db:orders-a</ResourceIdentifier>\
        <PendingMaintenanceActionDetails><PendingMaintenanceAction><Action>system-update</Action>\
        <CurrentApplyDate>2026-12-01T03:00:00Z</CurrentApplyDate></PendingMaintenanceAction>\
        </PendingMaintenanceActionDetails></ResourcePendingMaintenanceActions></PendingMaintenanceActions>";
    api.answer("DescribePendingMaintenanceActions", move |_| {
        (200, result("DescribePendingMaintenanceActions", pending))
    });
    let failover = "<Events><Event><SourceIdentifier>orders</SourceIdentifier><SourceType>db-cluster</SourceType>\
        <Message>Completed failover to DB instance: orders-b</Message><EventCategories><EventCategory>failover</EventCategory>\
        </EventCategories><Date>2026-11-28T03:00:00Z</Date></Event></Events>";
    api.answer("DescribeEvents", move |_| (200, result("DescribeEvents", failover)));
    let arn = "arn:aws:rds:eu-west-1:123456789012:cluster:orders";
    let deployment = format!(
        "<BlueGreenDeployments><member><BlueGreenDeploymentName>upgrade</BlueGreenDeploymentName><Source>{arn}</Source>\
         <Status>AVAILABLE</Status></member></BlueGreenDeployments>"
    );
    api.answer("DescribeBlueGreenDeployments", move |_| {
        (200, result("DescribeBlueGreenDeployments", &deployment))
    });
    let policy = wrong.folder.path().join("policy.json");
    let other = r#"{"Statement": [{"Action": "rds-db:connect", "Resource": "arn:aws:rds-db:eu-west-1:123456789012:dbuser:cluster-OTHER/*"}]}"#;
    fs::write(&policy, other).unwrap();
    let report = wrong.run(&["--aws", policy.to_str().unwrap()]).await;
    let expected = [
        "aws-auth-log",
        "aws-blue-green",
        "aws-engine",
        "aws-events",
        "aws-force-ssl",
        "aws-iam-off",
        "aws-idle-in-transaction",
        "aws-maintenance",
        "aws-member-missing",
        "aws-not-found",
        "aws-policy-database",
        "aws-port",
        "aws-small-class",
    ];
    assert_eq!(report.rules, expected.map(str::to_owned).into(), "{}", report.text);
    assert_eq!(report.code, 1);
}

#[tokio::test]
async fn what_is_denied_throttled_or_unreachable_is_not_examined_and_never_clean() {
    let api = RdsApi::start().await.unwrap();
    cluster(&api, &["orders-a"], &EXPORTS).await;
    let doctor = Doctor::new(&api, "postgresql", &[("orders-a", 5432)]);
    api.deny("DescribeDBParameters");
    api.answer("DescribeEvents", |_| (400, error("Throttling", "Rate exceeded")));
    parameters(&api, "DescribeDBClusterParameters", &[]);
    let report = doctor.run(&[]).await;
    assert_eq!((report.code, report.skipped.len()), (2, 2), "{}", report.text);
    let skipped = report.skipped.join("\n");
    assert!(skipped.contains("rds:DescribeDBParameters: not allowed; add this action"), "{skipped}");
    assert!(skipped.contains("rds:DescribeEvents: AWS throttles these calls"), "{skipped}");
    // Only what can pass is tried again, and not for long.
    assert_eq!((api.calls("DescribeDBParameters"), api.calls("DescribeEvents")), (1, 3));

    api.answer("DescribeDBInstances", |_| {
        (403, error("InvalidClientTokenId", "The security token included in the request is invalid."))
    });
    let report = doctor.run(&[]).await;
    assert_eq!((report.code, report.rules.len()), (2, 0), "{}", report.text);
    assert!(report.skipped[0].contains("no valid AWS credentials"), "{}", report.text);

    let mut nowhere = Doctor::new(&api, "postgresql", &[("orders-a", 5432)]);
    nowhere.environment.retain(|(name, _)| name != "AWS_ENDPOINT_URL_RDS");
    nowhere.environment.push(("AWS_ENDPOINT_URL".to_owned(), "http://127.0.0.1:9".to_owned()));
    let report = nowhere.run(&[]).await;
    assert_eq!((report.code, report.rules.len()), (2, 0), "{}", report.text);
    assert!(report.skipped[0].contains("the RDS API cannot be reached"), "{}", report.text);
    nowhere
        .environment
        .retain(|(name, _)| !name.starts_with("AWS_ACCESS") && !name.starts_with("AWS_SECRET"));
    let report = nowhere.run(&[]).await;
    assert!(report.skipped[0].contains("no AWS credentials here"), "{}", report.text);
}

#[tokio::test]
async fn all_pages_of_an_answer_are_read() {
    let api = RdsApi::start().await.unwrap();
    cluster(&api, &["orders-a"], &EXPORTS).await;
    parameters(&api, "DescribeDBClusterParameters", &[]);
    api.answer("DescribeDBParameters", |call| {
        let page = match call.get("Marker").map(String::as_str) {
            None => "<Parameters/><Marker>second</Marker>",
            Some(_) => {
                "<Parameters><Parameter><ParameterName>log_connections</ParameterName>\
                 <ParameterValue>0</ParameterValue></Parameter></Parameters>"
            }
        };
        (200, result("DescribeDBParameters", page))
    });
    let report = Doctor::new(&api, "postgresql", &[("orders-a", 5432)]).run(&[]).await;
    assert_eq!(report.rules, BTreeSet::from(["aws-log-connections".to_owned()]), "{}", report.text);
    assert_eq!(api.calls("DescribeDBParameters"), 2);
}
