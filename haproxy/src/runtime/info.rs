//! `show info`: the version, and the worker that answers.

use std::fmt;

/// The version, as far as behaviour depends on it.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version {
    pub major: u16,
    pub minor: u16,
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// The fields of `show info` that the agent uses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Info {
    /// The version as HAProxy prints it.
    pub version_text: String,
    pub version: Version,
    /// Of the worker that answers.
    pub pid: u32,
    /// In seconds.
    pub uptime: u64,
    /// The worker is from before a reload, and ends with its last session.
    pub stopping: bool,
    pub connections: u64,
    pub max_connections: u64,
}

impl Info {
    /// Reads the answer: `Key: value` lines.
    ///
    /// # Errors
    /// Names what is missing.
    pub fn parse(answer: &str) -> Result<Self, String> {
        let value = |key: &str| {
            answer
                .lines()
                .filter_map(|line| line.split_once(':'))
                .find(|(name, _)| *name == key)
                .map(|(_, value)| value.trim())
                .ok_or_else(|| format!("no `{key}` in it"))
        };
        let number = |key: &str| value(key)?.parse::<u64>().map_err(|_| format!("`{key}` is not a number"));
        // Not compared: commercial builds have other names.
        value("Name")?;
        let version_text = value("Version")?.to_owned();
        let mut numbers = version_text.split(['.', '-']).map(str::parse::<u16>);
        let (Some(Ok(major)), Some(Ok(minor))) = (numbers.next(), numbers.next()) else {
            return Err(format!("`{version_text}` is not a version"));
        };
        Ok(Self {
            version: Version { major, minor },
            pid: u32::try_from(number("Pid")?).map_err(|_| "`Pid` is too large".to_owned())?,
            uptime: number("Uptime_sec")?,
            stopping: number("Stopping")? != 0,
            connections: number("CurrConns")?,
            max_connections: number("Maxconn")?,
            version_text,
        })
    }
}
