//! The programs of the engines, and the libraries that they load instead of the system's.

use std::{
    env, fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use crate::process::{Error, Launch};

/// Where an engine's programs are.
#[derive(Clone, Debug)]
pub(super) struct Programs(Vec<PathBuf>);

impl Programs {
    /// Looks for all `needed` programs in the folder that the environment variable `variable` names.
    /// If it is not set: in each of `candidates`, of which the first that has all of them is taken.
    pub(super) fn find(
        product: &str,
        package: &str,
        needed: &[&str],
        variable: &str,
        candidates: impl IntoIterator<Item = Vec<PathBuf>>,
    ) -> Result<Self, Error> {
        let named = env::var_os(variable).map(PathBuf::from);
        let among = |folders: &[PathBuf]| {
            let found = needed.iter().map(|program| {
                let mut paths = folders.iter().map(|folder| folder.join(program));
                paths.find(|path| path.is_file())
            });
            found.collect::<Option<Vec<PathBuf>>>().map(Self)
        };
        let found = match &named {
            Some(folder) => among(std::slice::from_ref(folder)),
            None => candidates.into_iter().find_map(|folders| among(&folders)),
        };
        found.ok_or_else(|| {
            let where_looked = named.map_or_else(
                || "looked where Debian has them, and in PATH".to_owned(),
                |folder| format!("{variable} is {}", folder.display()),
            );
            let hint = format!(
                "{} not found ({where_looked}); install them (Debian: apt-get install {package}) or set {variable}",
                needed.join(", "),
            );
            Error::Io {
                what: format!("find {product}'s server programs"),
                source: io::Error::new(io::ErrorKind::NotFound, hint),
            }
        })
    }

    pub(super) fn paths(&self) -> &[PathBuf] {
        &self.0
    }

    /// The path of one that was looked for; any other is left to `PATH`.
    pub(super) fn path(&self, program: &str) -> PathBuf {
        let found = self.0.iter().find(|path| path.file_name().is_some_and(|name| name == program));
        found.cloned().unwrap_or_else(|| program.into())
    }
}

/// In `pam/`: what every engine loads instead of the system's libpam.
pub(super) const PAM: &str = "libpam.so.0";

/// What the libraries are compiled from.
pub(super) const SOURCES: [&str; 4] = [
    include_str!("pam/libpam.c"),
    include_str!("pam/libpam.map"),
    include_str!("pam/libnames.c"),
    include_str!("pam/rds_iam.c"),
];

/// Compiles `pam/libpam.c` into `folder`; the source is part of this program.
pub(super) async fn build_pam(folder: &Path, logs: &Path) -> Result<(), Error> {
    let versions = folder.join("libpam.map");
    write(&versions, include_str!("pam/libpam.map"))?;
    let versions = format!("-Wl,--version-script={}", versions.display());
    build(folder, logs, PAM, include_str!("pam/libpam.c"), &[versions]).await
}

/// In `pam/`: what MariaDB loads before all else.
pub(super) const NAMES: &str = "libnames.so";

/// Compiles `pam/libnames.c` into `folder`; the source is part of this program.
pub(super) async fn build_names(folder: &Path, logs: &Path) -> Result<(), Error> {
    build(folder, logs, NAMES, include_str!("pam/libnames.c"), &["-ldl".to_owned()]).await
}

/// Compiles the plugins of a real MySQL, with what asks about tokens in them.
pub(super) async fn build_plugin(folder: &Path, logs: &Path) -> Result<(), Error> {
    let source = concat!(include_str!("pam/libpam.c"), include_str!("pam/rds_iam.c"));
    build(folder, logs, "rds_iam.so", source, &[]).await
}

async fn build(
    folder: &Path,
    logs: &Path,
    library: &str,
    source: &str,
    arguments: &[String],
) -> Result<(), Error> {
    let file = folder.join(format!("{library}.c"));
    write(&file, source)?;
    Launch::new(&format!("cc-{library}"), "cc", logs)
        .args(["-shared", "-fPIC", "-O2", "-Wall", "-Wextra"])
        .arg(format!("-Wl,-soname,{library}"))
        .arg("-o")
        .arg(folder.join(library))
        .arg(file)
        .args(arguments)
        .run(Duration::from_mins(1))
        .await?;
    Ok(())
}

fn write(path: &Path, text: &str) -> Result<(), Error> {
    fs::write(path, text).map_err(Error::io(format!("write {}", path.display())))
}
