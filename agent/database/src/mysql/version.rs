//! The version that a server reports: MySQL or MariaDB, Aurora or not.

use std::fmt;

/// MariaDB prefixed its version with this until 11.0, for clients that expect MySQL 5.
const OLD_PREFIX: &str = "5.5.5-";

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerVersion {
    /// `8.0.39`, `10.11.19-MariaDB-log`.
    pub version: String,
    /// As a number: 80039 for 8.0.39, 101119 for 10.11.19; 0 if it cannot be parsed.
    pub number: u32,
    pub mariadb: bool,
    /// `@@version_comment`.
    pub comment: Option<String>,
    /// `aurora_version`; `None` elsewhere.
    pub aurora: Option<String>,
    /// The name of the variable that makes transactions read-only by default, if it has one.
    pub(super) read_only_default: Option<&'static str>,
}

impl ServerVersion {
    /// From the version in a greeting.
    pub(super) fn of_greeting(version: &str) -> Self {
        let mariadb = version.contains("MariaDB");
        let version = version.strip_prefix(OLD_PREFIX).filter(|_| mariadb).unwrap_or(version);
        Self {
            version: version.to_owned(),
            number: number_of(version),
            mariadb,
            comment: None,
            aurora: None,
            read_only_default: None,
        }
    }
}

impl fmt::Display for ServerVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.version)?;
        match (&self.aurora, &self.comment) {
            (Some(aurora), _) => write!(f, " (Aurora {aurora})"),
            (None, Some(comment)) if !comment.is_empty() => write!(f, " ({comment})"),
            _ => Ok(()),
        }
    }
}

/// `8.0.39-anything` as 80039; 0 if it cannot be parsed.
fn number_of(version: &str) -> u32 {
    let mut number = 0;
    let mut parts = version.split(|c: char| c != '.' && !c.is_ascii_digit()).next().unwrap_or("").split('.');
    for _ in 0..3 {
        match parts.next().and_then(|part| part.parse::<u32>().ok()).filter(|part| *part < 100) {
            Some(part) => number = number * 100 + part,
            None => return 0,
        }
    }
    number
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_as_servers_write_them() {
        let cases = [
            ("8.0.39", "8.0.39", 80_039, false),
            ("8.4.3-log", "8.4.3-log", 80_403, false),
            ("5.7.44-rds.20240529-log", "5.7.44-rds.20240529-log", 50_744, false),
            ("5.5.5-10.11.19-MariaDB-0+deb12u1", "10.11.19-MariaDB-0+deb12u1", 101_119, true),
            ("11.4.4-MariaDB-log", "11.4.4-MariaDB-log", 110_404, true),
            ("5.5.5-m3", "5.5.5-m3", 50_505, false),
            ("8.0", "8.0", 0, false),
            ("none of these", "none of these", 0, false),
        ];
        for (greeting, version, number, mariadb) in cases {
            let server = ServerVersion::of_greeting(greeting);
            assert_eq!((&*server.version, server.number, server.mariadb), (version, number, mariadb));
        }
    }

    #[test]
    fn a_version_is_shown_with_its_distribution() {
        let mut server = ServerVersion::of_greeting("8.0.32");
        assert_eq!(server.to_string(), "8.0.32");
        server.comment = Some("Source distribution".to_owned());
        assert_eq!(server.to_string(), "8.0.32 (Source distribution)");
        server.aurora = Some("3.08.0".to_owned());
        assert_eq!(server.to_string(), "8.0.32 (Aurora 3.08.0)");
    }
}
