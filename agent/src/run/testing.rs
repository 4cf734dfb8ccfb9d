//! A configuration for tests of this folder.

use crate::config::Config;

/// The database `orders` with two instances.
pub fn config(user: &str, a: &str, b: &str) -> Config {
    let text = format!(
        "databases:\n  - name: orders\n    engine: postgresql\n    user: {user}\n    region: eu-west-1\n    \
         instances:\n      - {{name: a, endpoint: '{a}:5432'}}\n      - {{name: b, endpoint: '{b}:5432'}}\n"
    );
    crate::config::parse("test", &text).unwrap().config
}

pub const A: &str = "a.abc.eu-west-1.rds.amazonaws.com";
pub const B: &str = "b.abc.eu-west-1.rds.amazonaws.com";
pub const C: &str = "c.abc.eu-west-1.rds.amazonaws.com";
