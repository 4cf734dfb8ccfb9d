//! Tokens → the text of a file.

use std::{fmt::Write, sync::Arc};

use agent_aws::Token;
use agent_database::Address;

use crate::config::file::TokenFormat;

/// One token for each endpoint, in the same order.
pub(super) fn text(format: TokenFormat, endpoints: &[Address], user: &str, tokens: &[Arc<Token>]) -> String {
    let secrets = tokens.iter().map(|token| token.expose_secret());
    of(format, endpoints.iter().map(|endpoint| &*endpoint.host).zip(secrets), user)
}

fn of<'a>(format: TokenFormat, secrets: impl Iterator<Item = (&'a str, &'a str)>, user: &str) -> String {
    let mut text = String::new();
    for (host, secret) in secrets {
        // Writing to a String cannot fail.
        let _ = match format {
            // libpq compares `host`, the RDS name, and not `hostaddr`. The port is that of a proxy.
            TokenFormat::Pgpass => {
                writeln!(text, "{}:*:*:{}:{}", escaped(host), escaped(user), escaped(secret))
            }
            // Not `enable-cleartext-plugin`: MariaDB's clients print a warning to standard output for it.
            TokenFormat::Mysql => writeln!(text, "[client]\nuser=\"{user}\"\npassword=\"{secret}\""),
            TokenFormat::Plain => write!(text, "{secret}"),
        };
    }
    text
}

/// A field of a line of a PGPASSFILE.
fn escaped(field: &str) -> String {
    field.replace('\\', "\\\\").replace(':', "\\:")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_format_is_what_its_clients_read() {
        let secrets = || [("db.example", "db.example:5432/?Action=connect&X=%2F")].into_iter();
        assert_eq!(
            of(TokenFormat::Pgpass, secrets(), "a:b\\c"),
            "db.example:*:*:a\\:b\\\\c:db.example\\:5432/?Action=connect&X=%2F\n"
        );
        assert_eq!(
            of(TokenFormat::Mysql, secrets(), "app"),
            "[client]\nuser=\"app\"\npassword=\"db.example:5432/?Action=connect&X=%2F\"\n"
        );
        assert_eq!(of(TokenFormat::Plain, secrets(), "app"), "db.example:5432/?Action=connect&X=%2F");
    }
}
