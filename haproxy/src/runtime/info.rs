//! `show info`: who answers.

use std::fmt;

/// HAProxy's version, as far as behaviour depends on it.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version {
    /// Major number.
    pub major: u16,
    /// Minor number.
    pub minor: u16,
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// What `show info` says that the agent needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Info {
    /// The version as printed.
    pub version_text: String,
    /// The version.
    pub version: Version,
    /// The process id of the worker that answers.
    pub pid: u32,
    /// Its uptime, in seconds.
    pub uptime: u64,
    /// It is from before a reload, and goes when its last session goes.
    pub stopping: bool,
    /// Its connections now.
    pub connections: u64,
    /// The most connections it takes.
    pub max_connections: u64,
}

impl Info {
    /// Reads the answer, `Key: value` a line.
    ///
    /// # Errors
    /// What is missing, in words.
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
        // Not compared: commercial builds have names of their own.
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
