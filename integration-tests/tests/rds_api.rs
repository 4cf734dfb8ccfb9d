//! `doctor --aws` and `topology` against RDS's API.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test")]

use std::{collections::BTreeSet, fs, path::PathBuf, process::Command};

use integration_tests::{
    process::wait_for,
    rds_api::{RdsApi, error, result},
    scene::{Agent, Files, PATIENCE, Setting},
};
use serde_json::Value;
use tempfile::TempDir;

/// The database `orders` of a configuration. The instances have the names of moto.
fn database(engine: &str, instances: &[(&str, u16)]) -> String {
    let instance = |(name, port): &(&str, u16)| {
        let endpoint = format!("{name}.aaaaaaaaaa.eu-west-1.rds.amazonaws.com:{port}");
        format!("      - {{name: {name}, endpoint: '{endpoint}'}}\n")
    };
    let instances = instances.iter().map(instance).collect::<Vec<_>>().concat();
    format!(
        "databases:\n  - name: orders\n    engine: {engine}\n    user: lb_agent\n    instances:\n{instances}"
    )
}

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
    fn new(api: &RdsApi, engine: &str, instances: &[(&str, u16)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("agent.yaml"), database(engine, instances)).unwrap();
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
    let entry = |(name, value): &(&str, &str)| {
        format!(
            "<Parameter><ParameterName>{name}</ParameterName><ParameterValue>{value}</ParameterValue>\
             <Source>user</Source></Parameter>"
        )
    };
    let entries = entries.iter().map(entry).collect::<Vec<_>>().concat();
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
    // Settings that the SDK cannot use, and an empty one, which is none.
    for (url, expected) in [
        ("no url", "correct the AWS settings of this environment"),
        ("ftp://127.0.0.1", "unsupported scheme ftp"),
        ("", "the RDS API cannot be reached"),
    ] {
        nowhere.environment.retain(|(name, _)| name != "AWS_ENDPOINT_URL_RDS");
        nowhere.environment.push(("AWS_ENDPOINT_URL_RDS".to_owned(), url.to_owned()));
        let report = nowhere.run(&[]).await;
        assert!(report.skipped[0].contains(expected), "{url}: {}", report.text);
        assert!(!report.text.contains("Request {"), "{}", report.text);
    }
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

/// What the agent reports of the topology of `orders`, when it is as wanted.
async fn topology(agent: &Agent, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    wait_for(what, PATIENCE, async || {
        let (_, text) = agent.get("/state").await.map_err(|error| error.to_string())?;
        let state: Value = serde_json::from_str(&text).map_err(|error| error.to_string())?;
        let topology = state["topologies"][0].clone();
        if wanted(&topology) { Ok(topology) } else { Err(format!("{topology}\n{}", agent.log())) }
    })
    .await
    .unwrap()
}

#[tokio::test]
async fn a_running_agent_reports_differences_and_keeps_them_while_aws_is_away() {
    let api = RdsApi::start().await.unwrap();
    cluster(&api, &["orders-a", "orders-b"], &EXPORTS).await;
    let files = Files::new(&Setting::default()).unwrap();
    let (check, http) = (files.agent_check, files.http);
    let mut agent = Agent::new(files);
    agent.environment = api.environment();
    let config = |instances: &[(&str, u16)]| {
        format!(
            "{}    topology: {{cluster: orders}}\nlisten: {{agent_check: '{check}', http: '{http}', control: {}}}\nstate_dir: {}\n",
            database("postgresql", instances),
            agent.control().display(),
            agent.state_dir().display(),
        )
    };
    let (one, both) = (config(&[("orders-a", 5432)]), config(&[("orders-a", 5432), ("orders-b", 5432)]));
    agent.write_config(&one).unwrap();
    agent.start().await.unwrap();
    let missing = "AWS has the member orders-b (orders-b.aaaaaaaaaa.eu-west-1.rds.amazonaws.com:5432), which is not configured";
    let differs = |topology: &Value| topology["differences"] == serde_json::json!([missing]);
    let seen = topology(&agent, "the difference", differs).await;
    assert_eq!((&seen["asked"], seen["members"].as_array().unwrap().len()), (&"cluster orders".into(), 2));
    assert_eq!(seen["members"][0]["writer"], true, "{seen}");
    let (_, metrics) = agent.get("/metrics").await.unwrap();
    assert!(metrics.contains("rdslb_topology_differences{database=\"orders\"} 1"), "{metrics}");

    // Refused: what was seen stays, and is reported as old. A reload asks at once.
    api.deny("DescribeDBClusters");
    agent.write_config(&format!("{one}log: {{level: debug}}\n")).unwrap();
    let denied =
        |topology: &Value| topology["error"].as_str().is_some_and(|text| text.contains("not allowed"));
    let seen = topology(&agent, "the refusal", denied).await;
    assert!(differs(&seen), "{seen}");

    api.let_answer("DescribeDBClusters");
    agent.write_config(&both).unwrap();
    let agrees = |topology: &Value| topology["differences"].as_array().is_some_and(Vec::is_empty);
    let seen = topology(&agent, "agreement", |seen| agrees(seen) && seen["error"].is_null()).await;
    assert_eq!(seen["members"].as_array().unwrap().len(), 2, "{seen}");
    let log = agent.log();
    for message in ["AWS and the configured instances differ", "AWS does not report", "agree again"] {
        assert_eq!(log.matches(message).count(), 1, "{message}: {log}");
    }
    assert!(!log.contains("a-made-up-secret"), "{log}");
    // Without the key AWS is not asked, and nothing is shown.
    agent.write_config(&both.replace("    topology: {cluster: orders}\n", "")).unwrap();
    topology(&agent, "no topology", Value::is_null).await;
}
