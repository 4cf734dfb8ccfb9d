//! The rules for the answers of AWS: each finds its bad example and not its good one.

#![allow(clippy::unwrap_used, reason = "a test")]

use doctor::{
    aws,
    setup::{Instance, Setup},
    source::Source,
};

#[test]
fn every_rule_finds_its_bad_example_and_not_its_good_one() {
    let setup = setup();
    let mut wrong = Vec::new();
    for rule in aws::rules() {
        for (text, expected) in [(rule.about.bad, true), (rule.about.good, false)] {
            let findings = aws::check(&[source(text)], &[], &setup);
            if findings.iter().any(|finding| finding.rule == rule.about.id) != expected {
                wrong.push((rule.about.id, text, findings));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn answers_that_were_fetched_have_no_lines_and_are_judged_with_those_in_files() {
    let instance = r#"{"DBInstances": [{"DBInstanceIdentifier": "orders-a", "DbiResourceId": "db-A",
        "DBParameterGroups": [{"DBParameterGroupName": "small"}], "DBInstanceClass": "db.t4g.medium",
        "Endpoint": {"Address": "Orders-A.abc.eu-west-1.rds.amazonaws.com", "Port": 5432}}]}"#;
    let policy = r#"{"Statement": [{"Action": "rds-db:connect", "Resource": "arn:aws:rds-db:eu-west-1:1:dbuser:db-B/app"}]}"#;
    let group = r#"{"DBParameterGroupName": "small", "Parameters": [{"ParameterName": "max_connections",
        "ParameterValue": "LEAST({DBInstanceClassMemory/9531392},5000)"}]}"#;
    let findings = aws::check(&[source(policy)], &[source(instance), source(group)], &setup());
    let rules: Vec<&str> = findings.iter().map(|finding| finding.rule).collect();
    assert_eq!(rules, ["aws-policy-database", "aws-max-connections"], "{findings:#?}");
    assert!(findings.iter().all(|finding| finding.line == 0), "{findings:#?}");
}

#[test]
fn a_value_for_instances_overrides_the_one_of_their_cluster() {
    let cluster =
        r#"{"DBClusterParameterGroupName": "c", "Parameters": [{"ParameterName": "max_connect_errors"}]}"#;
    let instance = r#"{"DBParameterGroupName": "i", "Parameters":
        [{"ParameterName": "max_connect_errors", "ParameterValue": "1000000"}]}"#;
    assert_eq!(aws::check(&[], &[source(cluster)], &Setup::default()).len(), 1);
    assert_eq!(aws::check(&[], &[source(cluster), source(instance)], &Setup::default()), []);
}

fn source(text: &str) -> Source {
    Source { name: "answer".into(), text: text.into() }
}

fn setup() -> Setup {
    let instance = Instance {
        id: "orders/a".into(),
        host: "orders-a.abc.eu-west-1.rds.amazonaws.com".into(),
        port: 5432,
        engine: "postgresql",
        keeps_connection: true,
        asked: true,
    };
    Setup {
        today: Some(20_000),
        instances: vec![instance],
        proxy_connections: Some(1_000),
        ..Setup::default()
    }
}
