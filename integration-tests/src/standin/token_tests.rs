//! Tokens against botocore's, and one test for each thing that can be wrong with a token.

use super::*;

const NOW: Timestamp = Timestamp::constant(1_800_000_000, 0);
const HOST: &str = "orders-a.c1a2b3d4e5f6.eu-west-1.rds.amazonaws.com";
const CLUSTER: &str = "orders.cluster-c1a2b3d4e5f6.eu-west-1.rds.amazonaws.com";
const PURPOSE: Purpose<'static> = Purpose { host: HOST, port: 5432, region: "eu-west-1", user: "app" };

fn credential() -> Credential {
    Credential {
        access_key: "ASIAEXAMPLE".to_owned(),
        secret_key: "made/up".to_owned(),
        session_token: "also+made/up==".to_owned(),
        expires_at: NOW + Duration::from_hours(6),
    }
}

fn verdict_with(issued: &Issued, token: &str, now: Timestamp) -> Result<(), Refusal> {
    let names = [HOST.to_owned(), CLUSTER.to_owned()];
    let expected = Expected { names: &names, port: 5432, region: "eu-west-1", user: "app" };
    let look_up = |key: &str| (key == issued.credential.access_key).then(|| issued.clone());
    verify(token, &expected, look_up, now)
}

fn verdict(token: &str) -> Result<(), Refusal> {
    verdict_with(&Issued { credential: credential(), revoked: false }, token, NOW)
}

fn refused_for(purpose: Purpose<'_>) -> Option<Refusal> {
    verdict(&sign(&credential(), &purpose, NOW)).err()
}

fn genuine() -> String {
    sign(&credential(), &PURPOSE, NOW)
}

/// Each line of the sample is a token that botocore made.
#[test]
fn botocore_and_the_stand_in_agree_on_every_token() {
    #[derive(serde::Deserialize)]
    struct Sample {
        user: String,
        host: String,
        port: u16,
        region: String,
        access_key: String,
        secret_key: String,
        session_token: Option<String>,
        signed_at: i64,
        token: String,
    }
    for line in include_str!("samples/botocore.jsonl").lines() {
        let sample: Sample = serde_json::from_str(line).unwrap();
        let at = Timestamp::from_second(sample.signed_at).unwrap();
        let credential = Credential {
            access_key: sample.access_key.clone(),
            secret_key: sample.secret_key.clone(),
            session_token: sample.session_token.clone().unwrap_or_default(),
            expires_at: at + Duration::from_hours(1),
        };
        let Sample { user, host, port, region, .. } = &sample;
        let purpose = Purpose { host, port: *port, region, user };
        assert_eq!(sign(&credential, &purpose, at), sample.token);

        let names = [host.clone()];
        let expected = Expected { names: &names, port: *port, region, user };
        let look_up = |_: &str| Some(Issued { credential: credential.clone(), revoked: false });
        assert_eq!(verify(&sample.token, &expected, look_up, at), Ok(()));
        assert_eq!(verify(&sample.token, &expected, |_| None, at), Err(Refusal::UnknownKey));
    }
}

#[test]
fn a_genuine_token_is_taken_for_each_name_of_the_server() {
    assert_eq!(verdict(&genuine()), Ok(()));
    assert_eq!(refused_for(Purpose { host: CLUSTER, ..PURPOSE }), None);
}

#[test]
fn a_token_for_something_else_is_refused() {
    let other = "orders-b.c1a2b3d4e5f6.eu-west-1.rds.amazonaws.com";
    assert_eq!(refused_for(Purpose { host: other, ..PURPOSE }), Some(Refusal::Host));
    assert_eq!(refused_for(Purpose { host: &HOST.to_uppercase(), ..PURPOSE }), Some(Refusal::Host));
    assert_eq!(refused_for(Purpose { port: 5433, ..PURPOSE }), Some(Refusal::Port));
    assert_eq!(refused_for(Purpose { region: "eu-west-2", ..PURPOSE }), Some(Refusal::Region));
    assert_eq!(refused_for(Purpose { user: "app2", ..PURPOSE }), Some(Refusal::User));
}

#[test]
fn a_token_lives_900_seconds_and_tolerates_a_clock_five_minutes_ahead() {
    let at = |seconds: i64| {
        let issued = Issued { credential: credential(), revoked: false };
        verdict_with(&issued, &genuine(), Timestamp::from_second(1_800_000_000 + seconds).unwrap())
    };
    assert_eq!(at(899), Ok(()));
    assert_eq!(at(900), Err(Refusal::Expired));
    assert_eq!(at(-300), Ok(()));
    assert_eq!(at(-301), Err(Refusal::NotYetValid));
}

#[test]
fn a_token_ends_with_the_credential_that_signed_it() {
    let mut credential = credential();
    credential.expires_at = NOW + Duration::from_secs(10);
    let token = sign(&credential, &PURPOSE, NOW);
    let issued = |revoked| Issued { credential: credential.clone(), revoked };
    assert_eq!(verdict_with(&issued(false), &token, NOW + Duration::from_secs(9)), Ok(()));
    let expired = verdict_with(&issued(false), &token, NOW + Duration::from_secs(10));
    assert_eq!(expired, Err(Refusal::CredentialExpired));
    assert_eq!(verdict_with(&issued(true), &token, NOW), Err(Refusal::CredentialRevoked));
}

#[test]
fn a_token_signed_with_anything_but_the_issued_secrets_is_refused() {
    let refused = |change: fn(&mut Credential)| {
        let mut other = credential();
        change(&mut other);
        verdict(&sign(&other, &PURPOSE, NOW)).err()
    };
    assert_eq!(refused(|other| other.access_key.push('X')), Some(Refusal::UnknownKey));
    assert_eq!(refused(|other| other.secret_key.push('X')), Some(Refusal::Signature));
    assert_eq!(refused(|other| other.session_token.push('X')), Some(Refusal::SessionToken));
    assert_eq!(refused(|other| other.session_token.clear()), Some(Refusal::SessionToken));
}

#[test]
fn no_parameter_can_be_changed_added_or_left_out() {
    let changed = |from: &str, to: &str| {
        let token = genuine();
        assert!(token.contains(from), "{from} is not in the token");
        verdict(&token.replace(from, to)).err()
    };
    assert_eq!(changed("Action=connect", "Action=leave"), Some(Refusal::Action));
    assert_eq!(changed("HMAC-SHA256", "HMAC-SHA1"), Some(Refusal::Algorithm));
    assert_eq!(changed("Expires=900", "Expires=9000"), Some(Refusal::Life));
    assert_eq!(changed("Headers=host", "Headers=host%3Bdate"), Some(Refusal::SignedHeaders));
    assert_eq!(changed("rds-db", "s3"), Some(Refusal::Scope));
    assert_eq!(changed("X-Amz-Date=2027", "X-Amz-Date=2028"), Some(Refusal::Scope));
    // A later time of the same day: only the signature can tell.
    assert_eq!(changed("T080000Z", "T080001Z"), Some(Refusal::Signature));
    assert_eq!(
        changed("&DBUser=app", "&DBUser=app&Extra=1"),
        Some(Refusal::Malformed("an unknown parameter"))
    );
    assert_eq!(changed("DBUser=app", "DBUser=app&DBUser=app"), Some(Refusal::Malformed("a parameter twice")));
    assert_eq!(changed("&DBUser=app", ""), Some(Refusal::Malformed("no DBUser")));

    let mut tampered = genuine();
    let last = if tampered.pop() == Some('0') { '1' } else { '0' };
    tampered.push(last);
    assert_eq!(verdict(&tampered), Err(Refusal::Signature));
}

#[test]
fn an_invalid_token_is_malformed() {
    for text in
        ["", "a password", "host:1/?", "host/?Action=connect", "host:1/?Action", "/?%zz=1", "host:1/?a=b+c"]
    {
        assert!(matches!(verdict(text), Err(Refusal::Malformed(_))), "{text:?}: {:?}", verdict(text));
    }
}
